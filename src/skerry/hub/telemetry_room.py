"""How long the hub keeps what hosts measured, and in how much detail: a week of minutes, two months, then a year.

Rules: windows become longer before they go; no count changes by it. Series of which nothing is left go with their
names. When all chunks together take too much, time moves on faster: the oldest of the finest become coarser first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from skerry.hub.telemetry_ingest import chunk_of, stretches
from skerry.kit.errors import Conflict
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore
from skerry.ports.telemetry_store import Chunk, ChunkName
from skerry.telemetry.windows import HOUR_S, MINUTE_S, TEN_MINUTES_S, Windows, coarsen_windows, merge_windows

_log = structlog.get_logger()

DAY_S = 86_400
KEEP_S = {MINUTE_S: 7 * DAY_S, TEN_MINUTES_S: 60 * DAY_S, HOUR_S: 400 * DAY_S}
LONGER_S = {MINUTE_S: TEN_MINUTES_S, TEN_MINUTES_S: HOUR_S}
MOST_BYTES = 8 << 30
AT_ONCE = 2000


class TelemetryRoom:
    """Keeps telemetry within its time and its room."""

    def __init__(self, store: HubStore, clock: Clock, *, most_bytes: int = MOST_BYTES) -> None:
        self._store = store
        self._clock = clock
        self.most_bytes = most_bytes

    async def trim(self) -> None:
        """Make what is old coarser, and forget what is older.

        Raises:
            Unavailable: the store cannot be used.
        """
        await asyncio.to_thread(self._trim)

    def _trim(self) -> None:
        now, hurry = int(self._clock.now().timestamp()), 1
        while True:
            for resolution_s, keep_s in KEEP_S.items():
                self._age(resolution_s, now - keep_s // hurry)
            self._store.forget_telemetry(
                series=[
                    one.id for one in self._store.telemetry_series(idle_since=now - KEEP_S[HOUR_S] // hurry)
                ]
            )
            if self._store.telemetry_bytes() <= self.most_bytes or KEEP_S[HOUR_S] // hurry < DAY_S:
                return
            hurry *= 2
            _log.warning("telemetry.crowded", most_bytes=self.most_bytes, keeping=f"1/{hurry} of the time")

    def _age(self, resolution_s: int, before: int) -> None:
        """Make chunks of windows of a length that are older than an instant coarser, or forget them."""
        longer_s = LONGER_S.get(resolution_s)
        while old := self._store.old_chunks(resolution_s, before, AT_ONCE):
            if longer_s is None:
                self._store.forget_telemetry(chunks=[name for _, name in old])
                continue
            by_host: dict[str, list[ChunkName]] = {}
            for host, name in old:
                by_host.setdefault(host, []).append(name)
            for host, names in by_host.items():
                try:
                    self._coarsen(host, names, longer_s)
                except Conflict:  # the host told something meanwhile: next time
                    return

    def _coarsen(self, host: str, names: Sequence[ChunkName], longer_s: int) -> None:
        (record,) = self._store.telemetry_hosts([host]) or (None,)
        if record is None:
            self._store.forget_telemetry(chunks=names)
            return
        added: dict[ChunkName, Windows] = {}
        for name, chunk in self._store.telemetry_chunks(names).items():
            coarse = coarsen_windows(chunk.windows, longer_s)
            for target, windows in stretches(name.series, coarse, longer_s).items():
                added[target] = merge_windows(added.get(target, {}), windows)
        there = self._store.telemetry_chunks(added.keys())
        put: dict[ChunkName, Chunk] = {
            name: chunk_of(merge_windows(there[name].windows, windows) if name in there else windows)
            for name, windows in added.items()
        }
        self._store.put_telemetry(record, put=put, remove=names)
