"""Which devices of a host the components of a release get.

Rules: a device is for one component alone unless everyone who uses it asked for it `shared`. Devices that are
named go before classes, so that a class does not take what another component names. What is taken by other
applications comes as names; one that is only shared is marked by `mark_shared`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from skerry.matching.clauses import Unmet
from skerry.spec.application import Device
from skerry.spec.facts import HostFacts

_SHARED = " (shared)"
# Nodes whose class lists every one of them, so that one which is not listed is not there. Of other paths
# (symbolic links, control nodes, the further nodes of a camera) facts say nothing.
_node_classes = (
    (re.compile(r"^/dev/tty(USB|ACM)\d+$"), "serial"),
    (re.compile(r"^/dev/accel/accel\d+$"), "npu"),
    (re.compile(r"^/dev/hailo\d+$"), "npu"),
    (re.compile(r"^/dev/apex_\d+$"), "tpu"),
    (re.compile(r"^/dev/i2c-\d+$"), "i2c"),
    (re.compile(r"^/dev/spidev\d+\.\d+$"), "spi"),
    (re.compile(r"^/dev/gpiochip\d+$"), "gpio"),
)


class DeviceNeed(NamedTuple):
    """A device that a component asks for; `contained` says that it runs in a container."""

    component: str
    device: Device
    contained: bool


class DeviceMatch(msgspec.Struct, frozen=True):
    """What each component gets, by component and device name; what is missing, by component; what is to be seen."""

    given: Mapping[str, Mapping[str, str]] = {}
    lacks: tuple[tuple[str, Unmet], ...] = ()
    notes: tuple[str, ...] = ()


def mark_shared(name: str) -> str:
    """Return how `taken` names a device that other applications hold, but would share."""
    return name + _SHARED


def taken_by(needs: Iterable[DeviceNeed], given: Mapping[str, Mapping[str, str]]) -> frozenset[str]:
    """Return what is taken once devices have been given, as `match_devices` reads it."""
    names: set[str] = set()
    for need in needs:
        name = given.get(need.component, {}).get(need.device.name)
        if name is not None:
            names.add(mark_shared(name) if need.device.shared else name)
    return frozenset(names)


def match_devices(needs: Iterable[DeviceNeed], facts: HostFacts, taken: AbstractSet[str]) -> DeviceMatch:
    """Return which devices of a host the components get, and what cannot be given."""
    holding = _Holding(taken)
    given: dict[str, dict[str, str]] = {}
    lacks: list[tuple[str, Unmet]] = []
    notes: list[str] = []
    for need in sorted(needs, key=_turn):
        use = need.device.use
        found = _class_device(need, facts, holding) if "/" not in use else _named_device(need, facts, holding)
        if isinstance(found, Unmet):
            lacks.append((need.component, found))
            continue
        holding.give(found, shared=need.device.shared)
        given.setdefault(need.component, {})[need.device.name] = found
        if use.startswith("/dev/") and not _is_listed(use, facts):
            notes.append(
                f"{need.component}: no fact says whether {use} is there; the host looks before it stops anything"
            )
    return DeviceMatch(given, tuple(lacks), tuple(notes))


class _Holding:
    """Who holds what: alone, or shared with others."""

    def __init__(self, taken: AbstractSet[str]) -> None:
        self.shared = {name.removesuffix(_SHARED) for name in taken if name.endswith(_SHARED)}
        self.alone = {name for name in taken if not name.endswith(_SHARED)}

    def is_free(self, name: str, *, shared: bool) -> bool:
        return name not in self.alone and (shared or name not in self.shared)

    def give(self, name: str, *, shared: bool) -> None:
        (self.shared if shared else self.alone).add(name)


def _turn(need: DeviceNeed) -> tuple[bool, bool]:
    return "/" not in need.device.use, need.device.shared


def _class_device(need: DeviceNeed, facts: HostFacts, holding: _Holding) -> str | Unmet:
    device = need.device
    wants = f"device {device.name}: a {device.use}"
    fact = facts.get(f"devices.{device.use}")
    if fact is None or not isinstance(fact.value, tuple):
        return Unmet(wants, "which is unknown of this host")
    for name in fact.value:
        if holding.is_free(name, shared=device.shared):
            return name
    return Unmet(wants, f"has {', '.join(fact.value)}, none of them free" if fact.value else "has none")


def _named_device(need: DeviceNeed, facts: HostFacts, holding: _Holding) -> str | Unmet:
    device, name = need.device, need.device.use
    wants = f"device {device.name}: {name}"
    if not name.startswith("/dev/"):
        if not need.contained:
            return Unmet(wants, "which can only be given to a container")
        fact = facts.get("devices.cdi")
        known = fact.value if fact is not None and isinstance(fact.value, tuple) else ()
        if name not in known:
            return Unmet(wants, f"has {', '.join(known) or 'no devices of the Container Device Interface'}")
    else:
        missing = _known_missing(name, facts)
        if missing:
            return Unmet(wants, missing)
    return name if holding.is_free(name, shared=device.shared) else Unmet(wants, "which is not free")


def _known_missing(path: str, facts: HostFacts) -> str:
    """Say what is there instead, if the facts tell that a path is not."""
    kind = next((kind for pattern, kind in _node_classes if pattern.match(path)), None)
    fact = facts.get(f"devices.{kind}") if kind else None
    if fact is None or not isinstance(fact.value, tuple) or _is_listed(path, facts):
        return ""
    return f"has {', '.join(fact.value) or 'none'}"


def _is_listed(path: str, facts: HostFacts) -> bool:
    return any(
        path in fact.value if isinstance(fact.value, tuple) else fact.value == path
        for name, fact in facts.items()
        if name.startswith(("devices.", "accelerator.", "gpu."))
    )
