"""How much room a host has for one more application: memory, processors and disk, less what is set aside.

An application sets aside what its components request, or else their limits; one that states neither sets nothing
aside and fits anywhere. What a host has not reported is no room at all for those who ask for it.
"""

from __future__ import annotations

import msgspec

from skerry.kit.quantities import parse_cpu, parse_size
from skerry.matching.clauses import show_size
from skerry.spec.application import ApplicationSpec
from skerry.spec.facts import HostFacts


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What is set aside for an application; processors in thousandths, so that sums are exact."""

    memory_bytes: int = 0
    cpu_milli: int = 0
    disk_bytes: int = 0

    def plus(self, other: Need) -> Need:
        """Return both together."""
        return Need(
            memory_bytes=self.memory_bytes + other.memory_bytes,
            cpu_milli=self.cpu_milli + other.cpu_milli,
            disk_bytes=self.disk_bytes + other.disk_bytes,
        )


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is left on a host; None is unknown. It is negative where more is set aside than there is."""

    memory_bytes: int | None = None
    cpu_milli: int | None = None
    disk_bytes: int | None = None

    def less(self, need: Need) -> Room:
        """Return what is left after `need`."""
        return Room(
            memory_bytes=None if self.memory_bytes is None else self.memory_bytes - need.memory_bytes,
            cpu_milli=None if self.cpu_milli is None else self.cpu_milli - need.cpu_milli,
            disk_bytes=None if self.disk_bytes is None else self.disk_bytes - need.disk_bytes,
        )


def need_of(application: ApplicationSpec, *, disk_bytes: int = 0) -> Need:
    """Return what an application sets aside on each host that runs it; its files' bytes are the caller's to know."""
    memory = cpu = 0
    for component in application.components:
        limits, requests = component.resources, component.resources.requests
        memory += parse_size(requests.memory or limits.memory or "0B")
        cpu += round(parse_cpu(requests.cpu or limits.cpu or "0") * 1000)
    return Need(memory_bytes=memory, cpu_milli=cpu, disk_bytes=disk_bytes)


def room_of(facts: HostFacts) -> Room:
    """Return all the room of a host; of the disk, what is free now."""
    cpus = _number(facts, "cpu_count")
    return Room(
        memory_bytes=_number(facts, "memory_bytes"),
        cpu_milli=None if cpus is None else cpus * 1000,
        disk_bytes=_number(facts, "disk.free_bytes"),
    )


def lacks_of(need: Need, room: Room) -> list[str]:
    """Return what does not fit, each as a sentence; empty when everything does."""
    lacks: list[str] = []
    for what, asked, left in (
        ("memory", need.memory_bytes, room.memory_bytes),
        ("disk", need.disk_bytes, room.disk_bytes),
    ):
        if asked and (left is None or left < asked):
            has = "is unknown of this host" if left is None else f"has {show_size(max(left, 0))} left"
            lacks.append(f"sets {show_size(asked)} of {what} aside, {has}")
    if need.cpu_milli and (room.cpu_milli is None or room.cpu_milli < need.cpu_milli):
        has = (
            "is unknown of this host"
            if room.cpu_milli is None
            else f"has {max(room.cpu_milli, 0) / 1000:g} left"
        )
        lacks.append(f"sets {need.cpu_milli / 1000:g} processors aside, {has}")
    return lacks


def _number(facts: HostFacts, name: str) -> int | None:
    fact = facts.get(name)
    return fact.value if fact is not None and type(fact.value) is int else None
