"""Checks of the bindings that a site offers, and of those that an application needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from skerry.kit.quantities import parse_duration
from skerry.spec.application import ApplicationSpec, Component
from skerry.spec.binding import (
    BINDING_TYPES,
    DEVICE_TYPES,
    BindingNeed,
    BindingSpec,
    ModbusBinding,
    fields_of,
)
from skerry.spec.checks_files import check_unique
from skerry.spec.problems import Problem

SECRETS_FOLDER = "bindings"
"""The directory below a component's secrets that is for those of its bindings."""
_label_re = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$")
_BITS = ("coil", "discrete")
_READ_ONLY = ("discrete", "input")


def check_bindings(bindings: Sequence[BindingSpec]) -> Iterator[Problem]:
    """Yield what is wrong with what a site offers."""
    yield from check_unique("spec.bindings", "binding", (one.name for one in bindings))
    for index, binding in enumerate(bindings):
        yield from _check_binding(f"spec.bindings[{index}]", binding)


def check_needs(application: ApplicationSpec) -> Iterator[Problem]:
    """Yield what is wrong with what an application needs."""
    yield from check_unique("spec.needs", "need", (need.name for need in application.needs))
    components = {component.name: component for component in application.components}
    for index, need in enumerate(application.needs):
        yield from _check_need(f"spec.needs[{index}]", need, components)
    if not application.needs:
        return
    for index, component in enumerate(application.components):
        for place, use in enumerate(component.secrets):
            if use.path and use.path.split("/")[0] == SECRETS_FOLDER:
                where = f"spec.components[{index}].secrets[{place}].path"
                hint = "name another directory"
                yield Problem(where, f"{SECRETS_FOLDER} is for the secrets of bindings", hint)


def binding_references(needs: Iterable[BindingNeed], component: str) -> Iterator[str]:
    """Yield the references that a component may make to the bindings it is told of."""
    for need in needs:
        if need.is_for(component):
            yield from (f"binding.{need.name}.{field}" for field in fields_of(need.type))


def _check_binding(path: str, binding: BindingSpec) -> Iterator[Problem]:
    yield from _check_labels(f"{path}.labels", binding.labels)
    types = [one for one in BINDING_TYPES if getattr(binding, one) is not None]
    if len(types) != 1:
        told = f"is of {' and '.join(types)}" if types else "is of no type"
        yield Problem(path, told, f"write exactly one of {', '.join(BINDING_TYPES)}")
        return
    if binding.camera is not None and (binding.camera.url is None) == (binding.camera.device is None):
        count = 0 if binding.camera.url is None else 2
        yield Problem(f"{path}.camera", f"{count} addresses", "write exactly one of url, device")
    if binding.modbus is not None:
        yield from _check_modbus(f"{path}.modbus", binding.modbus)
    if binding.device and binding.host is None:
        hint = "write host: NAME, the host of the site that it is plugged into"
        yield Problem(f"{path}.host", "a device is attached to a host", hint)
    if binding.type in DEVICE_TYPES and (binding.username or binding.secrets):
        yield Problem(path, "a device asks for no name and no secret", "leave out username and secrets")
    yield from _check_address(path, binding)


def _check_address(path: str, binding: BindingSpec) -> Iterator[Problem]:
    for part, key in (
        (binding.camera, "url"),
        (binding.mqtt, "url"),
        (binding.opcua, "endpoint"),
        (binding.http, "url"),
    ):
        address: str | None = getattr(part, key, None)
        if not address:
            continue
        where = f"{path}.{binding.type}.{key}"
        try:
            parts = urlsplit(address)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            yield Problem(where, f"not an address: {error}")
            continue
        if parts.username is not None or parts.password is not None:
            hint = "write username: NAME and secrets: {password: SECRET} beside it"
            yield Problem(where, "names who gets in, or with what: addresses are shown to many", hint)
        if not host:
            yield Problem(where, "names no host")


def _check_modbus(path: str, modbus: ModbusBinding) -> Iterator[Problem]:
    if (modbus.host is None) == (modbus.serial is None):
        count = 0 if modbus.host is None else 2
        yield Problem(path, f"{count} addresses", "write exactly one of host, serial")
    for name, register in modbus.registers.items():
        where = f"{path}.registers.{name}"
        if (register.kind in _BITS) != (register.type == "bool"):
            hint = "coil and discrete are bool, input and holding are numbers"
            yield Problem(f"{where}.type", f"a {register.kind} is no {register.type}", hint)
        if register.writable and register.kind in _READ_ONLY:
            yield Problem(f"{where}.writable", f"a {register.kind} can only be read", "leave it out")
        if register.scale == 0:
            yield Problem(f"{where}.scale", "must not be 0")


def _check_need(path: str, need: BindingNeed, components: dict[str, Component]) -> Iterator[Problem]:
    yield from _check_labels(f"{path}.labels", need.labels)
    told = [components[name] for name in need.components if name in components]
    for name in need.components:
        if name not in components:
            hint = f"components here: {', '.join(components)}"
            yield Problem(f"{path}.components", f"no component named {name}", hint)
    change = need.on_change
    ways = [way for way in (change.signal, change.http, change.file or None) if way is not None]
    if len(ways) > 1:
        yield Problem(f"{path}.on_change", f"{len(ways)} ways to tell", "write one of signal, http, file")
    if change.http is not None:
        for component in told or components.values():
            ports = [port.name for port in component.ports]
            if change.http.port not in ports:
                hint = (
                    f"ports there: {', '.join(ports)}"
                    if ports
                    else "it has no ports: write components: [...]"
                )
                message = f"no port named {change.http.port} in {component.name}"
                yield Problem(f"{path}.on_change.http.port", message, hint)
    if parse_duration(change.timeout) <= 0:
        yield Problem(f"{path}.on_change.timeout", "must be longer than 0")


def _check_labels(path: str, labels: dict[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        if not _label_re.match(key):
            yield Problem(f"{path}.{key}", "not a label's name", "letters, digits and . _ / -")
        if value and not _label_re.match(value):
            yield Problem(f"{path}.{key}", f"not a label's value: {value!r}", "letters, digits and . _ / -")
