"""TelemetryBuffer: what a host measured and the hub does not have yet, on the host's disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from skerry.telemetry.room import KeptBlock, Priority


class NewBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block to be kept. `number` is that of the batch that it is to travel as; 0 as long as that is open."""

    priority: Priority
    begin: int
    resolution_s: int
    samples: int
    content: bytes
    number: int = 0


class StoredBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block that is kept, under its own `id`."""

    id: int
    block: NewBlock


class TelemetryBuffer(Protocol):
    """Durable after each call; a power cut leaves the state before or after it. Usable from any thread."""

    def change(
        self,
        put: Sequence[NewBlock] = (),
        remove: Sequence[int] = (),
        *,
        counts: Mapping[str, int] = {},
    ) -> None:
        """Keep some blocks, forget others and store counts by name, all or none.

        Raises:
            Unavailable: no room (`disk.full`).
        """
        ...

    def kept(self) -> Sequence[KeptBlock]:
        """Return all blocks without their content, the oldest first."""
        ...

    def blocks(self, ids: Sequence[int]) -> Sequence[StoredBlock]:
        """Return blocks by id, the oldest first; those that are not there any more are left out."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Return all counts."""
        ...

    @property
    def stream(self) -> str:
        """The name of this buffer, made at random when it began."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
