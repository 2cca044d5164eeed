"""The component that becomes of one service, while its keys are read."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from skerry.client.compose.measures import convert_name, convert_size
from skerry.client.compose.nodes import Node

_ORDER = (
    "name", "image", "command", "args", "container", "volumes", "devices", "env", "ports", "probes", "resources",
    "stop",
)  # fmt: skip


class Options(msgspec.Struct, frozen=True):
    """What the person who converts has chosen; `folder` names the application where nothing else does."""

    name: str = ""
    folder: str = ""
    version: str = ""
    image_source: Literal["engine", "docker"] = "engine"
    keep_default_capabilities: bool = False


class Draft:
    """A component in the making: plain values under the names that documents use."""

    def __init__(self, name: str, service: Node, options: Options) -> None:
        self.name = name
        self.service = service
        self.options = options
        self.fields: dict[str, Any] = {"name": name}
        self.container: dict[str, Any] = {}
        self.resources: dict[str, Any] = {}
        self.stop: dict[str, Any] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.volume_nodes: dict[str, Node] = {}
        self.devices: list[dict[str, Any]] = []
        self.ports: list[dict[str, Any]] = []
        self.networks: list[str] = []

    def component(self) -> dict[str, Any]:
        """Return the component as a document holds it, empty parts left out."""
        whole = {
            **self.fields,
            "container": self.container,
            "volumes": list(self.volumes.values()),
            "devices": self.devices,
            "ports": self.ports,
            "resources": self.resources,
            "stop": self.stop,
        }
        return {key: whole[key] for key in _ORDER if whole.get(key) not in (None, {}, [])}

    def set_size(self, part: dict[str, Any], field: str, node: Node) -> None:
        """Set a field to a size; the same limit written in two places must be the same."""
        if text := node.text():
            try:
                self.set_once(part, field, convert_size(text), node)
            except ValueError as error:
                node.problem(str(error), "write 512m or 2gb")

    def set_once(self, part: dict[str, Any], field: str, value: object, node: Node) -> None:
        """Set a field that may be written in two places."""
        if part.setdefault(field, value) != value:
            node.problem(f"says another {field} than the same service does elsewhere", "write it once")


def unique_name(wanted: str, taken: list[str], fallback: str) -> str:
    """Return the nearest valid name that is not taken yet."""
    stem = convert_name(wanted) or fallback
    name, number = stem, 2
    while name in taken:
        name = f"{stem[:58]}-{number}"
        number += 1
    return name
