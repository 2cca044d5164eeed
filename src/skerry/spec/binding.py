"""Bindings: what is there at a site that applications are joined to, and what an application needs of it.

A site offers them by type, labels and address; an application asks by type and labels, under a name of its own. What
is secret is named, and never written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Duration, Name, Part

BindingType = Literal["camera", "mqtt", "opcua", "modbus", "http", "serial", "usb", "gpio"]
BINDING_TYPES: tuple[BindingType, ...] = (
    "camera",
    "mqtt",
    "opcua",
    "modbus",
    "http",
    "serial",
    "usb",
    "gpio",
)
DEVICE_TYPES: frozenset[BindingType] = frozenset({"serial", "usb", "gpio"})

MAX_BINDINGS = 256
MAX_NEEDS = 32
MAX_POINTS = 1024

Signal = Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"]
BindingLabels = Annotated[dict[str, str], Meta(max_length=64)]
PointName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$", description="letters, digits, _ and -, 128 at most"),
]
CameraUrl = Annotated[
    str, Meta(pattern=r"^(rtsps?|https?)://[^\s]+$", max_length=1024, description="rtsp://, or http://...")
]
MqttUrl = Annotated[
    str, Meta(pattern=r"^mqtts?://[^\s/]+$", max_length=512, description="mqtt://HOST:PORT or mqtts://...")
]
OpcUaUrl = Annotated[
    str, Meta(pattern=r"^opc\.tcp://[^\s]+$", max_length=512, description="opc.tcp://HOST:PORT")
]
HttpUrl = Annotated[
    str, Meta(pattern=r"^https?://[^\s]+$", max_length=1024, description="http://... or https://...")
]
Topic = Annotated[str, Meta(pattern=r"^\S+$", max_length=512, description="a topic, or a pattern of topics")]
NodeId = Annotated[
    str,
    Meta(
        pattern=r"^(ns=[0-9]{1,5};)?[isgb]=.+$",
        max_length=512,
        description="a node id such as ns=2;s=Line1.Speed",
    ),
]
DevicePath = Annotated[
    str,
    Meta(
        pattern=r"^/dev/[^\s:,]+$", max_length=255, description="a path below /dev, without spaces, : and ,"
    ),
]
SecretUseName = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="what it is for, such as password, token or ca")
]


class CameraBinding(Part, frozen=True, kw_only=True):
    """A camera: the `url` of its stream or of its newest picture, or the `device` it is on its host."""

    url: CameraUrl | None = None
    device: DevicePath | None = None


class MqttBinding(Part, frozen=True, kw_only=True):
    """Topics of a broker that is there already; `topics` are by the name that applications know them by."""

    url: MqttUrl
    topics: Annotated[dict[PointName, Topic], Meta(max_length=MAX_POINTS)] = {}


class OpcUaNode(Part, frozen=True, kw_only=True):
    """A node of an OPC UA server. Only one that is `writable` is ever written."""

    node: NodeId
    type: Literal["boolean", "integer", "number", "text"] = "number"
    writable: bool = False


class OpcUaBinding(Part, frozen=True, kw_only=True):
    """An OPC UA server, with its nodes by the names that applications know them by."""

    endpoint: OpcUaUrl
    nodes: Annotated[dict[PointName, OpcUaNode], Meta(max_length=MAX_POINTS)] = {}


class ModbusRegister(Part, frozen=True, kw_only=True):
    """A value of a Modbus unit: `value = raw * scale + offset`. Addresses count from 0, as on the wire.

    Numbers of 32 bits are two registers, the high word first. Only one that is `writable` is ever written.
    """

    kind: Literal["coil", "discrete", "input", "holding"]
    address: Annotated[int, Meta(ge=0, le=65535)]
    type: Literal["bool", "int16", "uint16", "int32", "uint32", "float32"] = "uint16"
    scale: float = 1.0
    offset: float = 0.0
    writable: bool = False


class ModbusBinding(Part, frozen=True, kw_only=True):
    """A Modbus unit, over TCP at `host` and `port`, or over the `serial` port of a host."""

    host: (
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:_-]{1,253}$", description="a name or an address")] | None
    ) = None
    port: Annotated[int, Meta(ge=1, le=65535)] = 502
    serial: DevicePath | None = None
    baud: Annotated[int, Meta(ge=300, le=4_000_000)] = 19200
    unit: Annotated[int, Meta(ge=0, le=255)] = 1
    registers: Annotated[dict[PointName, ModbusRegister], Meta(max_length=MAX_POINTS)] = {}


class HttpBinding(Part, frozen=True, kw_only=True):
    """An HTTP interface, by the address that its paths are below."""

    url: HttpUrl


class DeviceBinding(Part, frozen=True, kw_only=True):
    """A device, by its path on the host that it is attached to."""

    path: DevicePath


class BindingSpec(Part, frozen=True, kw_only=True):
    """Something at a site that applications can be joined to: exactly one of the types, with its address.

    With a `host`, only that host can use it: a device is attached to one. One that is `exclusive` is for one
    application at a time. `username` and `secrets` are what it takes to get in; `secrets` names the site's secrets by
    what they are for, such as `password: plc-password`.
    """

    name: Name
    labels: BindingLabels = {}
    host: Name | None = None
    exclusive: bool = False
    username: Annotated[str, Meta(max_length=255)] = ""
    secrets: Annotated[dict[SecretUseName, Name], Meta(max_length=8)] = {}
    camera: CameraBinding | None = None
    mqtt: MqttBinding | None = None
    opcua: OpcUaBinding | None = None
    modbus: ModbusBinding | None = None
    http: HttpBinding | None = None
    serial: DeviceBinding | None = None
    usb: DeviceBinding | None = None
    gpio: DeviceBinding | None = None

    @property
    def type(self) -> BindingType:
        """The type whose part is there; a checked binding has one."""
        return next(one for one in BINDING_TYPES if getattr(self, one) is not None)

    @property
    def device(self) -> str:
        """The path of the device that it is on its host, empty where it is none."""
        for part in (self.serial, self.usb, self.gpio):
            if part is not None:
                return part.path
        if self.modbus is not None and self.modbus.serial:
            return self.modbus.serial
        return (self.camera.device or "") if self.camera is not None else ""


class BindingHttp(Part, frozen=True, kw_only=True):
    """A POST to a port of the component; a status from 200 to 299 says that it took note."""

    port: Name
    path: Annotated[str, Meta(pattern=r"^/[^\s]*$", max_length=1024)] = "/"


class OnBindingChange(Part, frozen=True, kw_only=True):
    """How a component takes a binding that has changed, or whose device came or went; one of these at most.

    `file`: it reads the file that `SKERRY_BINDINGS` names by itself. Without any of them it is restarted when the
    binding has changed, and not told of its device.
    """

    signal: Signal | None = None
    http: BindingHttp | None = None
    file: bool = False
    timeout: Duration = "30s"


class BindingNeed(Part, frozen=True, kw_only=True):
    """What an application needs to be joined to: one binding of the `type` that has all these labels.

    `components` are those that are told of it; none named are all.
    """

    name: Name
    type: BindingType
    labels: BindingLabels = {}
    components: tuple[Name, ...] = ()
    on_change: OnBindingChange = OnBindingChange()

    def is_for(self, component: str) -> bool:
        """Tell whether a component is told of it."""
        return not self.components or component in self.components


DeviceState = Literal["present", "absent", "unknown"]


class BindingView(Part, frozen=True, kw_only=True):
    """A binding as its host sees it, since when, and the applications that are joined to it there.

    `state` is `unknown` of what is no device: only its use tells whether it answers.
    """

    state: DeviceState = "unknown"
    since: datetime | None = None
    used_by: tuple[str, ...] = ()


FIELDS: Mapping[BindingType, tuple[str, ...]] = {
    "camera": ("url", "device"),
    "mqtt": ("url",),
    "opcua": ("endpoint",),
    "modbus": ("host", "port", "serial", "baud", "unit"),
    "http": ("url",),
    "serial": ("path",),
    "usb": ("path",),
    "gpio": ("path",),
}
"""What of each type's address is one value, for variables and references."""
ALWAYS: tuple[str, ...] = ("binding", "type", "username")


def fields_of(type_: BindingType) -> tuple[str, ...]:
    """Return what `${binding.NAME.FIELD}` may name of a binding of a type."""
    return (*ALWAYS, *FIELDS[type_])


def values_of(binding: BindingSpec) -> dict[str, str]:
    """Return the fields of a binding with their values, all that there may be; empty where it says nothing."""
    part = getattr(binding, binding.type)
    address = {field: getattr(part, field) for field in FIELDS[binding.type]}
    return {
        "binding": binding.name,
        "type": binding.type,
        "username": binding.username,
        **{field: "" if value is None else str(value) for field, value in address.items()},
    }
