"""HostReadings: how a host, and what runs on it, fares at this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec


class Reading(msgspec.Struct, frozen=True):
    """A value that a machine tells. A counter only rises, until it begins anew."""

    name: str
    value: float
    kind: Literal["gauge", "counter"] = "gauge"
    labels: Mapping[str, str] = {}


class Usage(msgspec.Struct, frozen=True):
    """What processes took since they were first looked at, and what memory they hold now."""

    cpu_s: float
    memory_bytes: int


class HostReadings(Protocol):
    """Blocking; call it in a thread. What a machine does not tell is left out."""

    def host(self) -> Sequence[Reading]:
        """Return how the machine fares."""
        ...

    def usage(self, processes: Mapping[str, int]) -> Mapping[str, Usage]:
        """Return what each of some processes takes, by name, with all that it started."""
        ...
