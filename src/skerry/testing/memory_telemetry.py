"""MemoryTelemetryBuffer: what a host measured, without a disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from skerry.kit.errors import Unavailable
from skerry.ports.telemetry_buffer import NewBlock, StoredBlock, TelemetryBuffer
from skerry.telemetry.room import KeptBlock


class MemoryTelemetryBuffer(TelemetryBuffer):
    """Keeps blocks in a dictionary; `full` makes every change fail, as on a full disk."""

    def __init__(self, stream: str = "memory") -> None:
        self._stream = stream
        self._turn = threading.Lock()
        self._blocks: dict[int, NewBlock] = {}
        self._counts: dict[str, int] = {}
        self._next = 1
        self.full = False

    @property
    def stream(self) -> str:
        return self._stream

    def change(
        self,
        put: Sequence[NewBlock] = (),
        remove: Sequence[int] = (),
        *,
        counts: Mapping[str, int] = {},
    ) -> None:
        if self.full:
            raise Unavailable("disk.full", "no room")
        with self._turn:
            for one in remove:
                self._blocks.pop(one, None)
            for block in put:
                self._blocks[self._next] = block
                self._next += 1
            self._counts.update(counts)

    def kept(self) -> Sequence[KeptBlock]:
        with self._turn:
            found = [
                KeptBlock(
                    key, block.priority, block.begin, block.resolution_s, len(block.content), block.number > 0
                )
                for key, block in self._blocks.items()
            ]
        return sorted(found, key=lambda one: (one.begin, one.id))

    def blocks(self, ids: Sequence[int]) -> Sequence[StoredBlock]:
        with self._turn:
            found = [StoredBlock(id=key, block=self._blocks[key]) for key in ids if key in self._blocks]
        return sorted(found, key=lambda one: (one.block.begin, one.id))

    def counts(self) -> Mapping[str, int]:
        with self._turn:
            return dict(self._counts)

    def close(self) -> None:
        return
