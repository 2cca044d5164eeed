"""Takes what hosts measured: each batch once, by when things happened.

Rules: which batches came and what they said is stored in one step, so that a batch which comes again, by whichever way
and after whichever crash, changes nothing. What cannot be kept is counted. Work is done before the store's writer has
it: reports do not wait for telemetry.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping

import msgspec
import structlog

from skerry.kit.errors import Conflict, Rejected
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore
from skerry.ports.telemetry_store import SPANS, Chunk, ChunkName, HostTelemetry, SeriesRecord, Stream
from skerry.spec.telemetry import Losses, TelemetryBatch
from skerry.telemetry.blocks import Block, decode_block
from skerry.telemetry.received import add_number
from skerry.telemetry.windows import (
    MINUTE_S,
    SeriesKey,
    Windows,
    WindowValue,
    merge_all,
    merge_windows,
)

_log = structlog.get_logger()

MAX_SERIES_PER_HOST = 5000
MAX_STREAMS = 8
MAX_AHEAD_S = 86_400
KEEP_S = 400 * 86_400
TRIES = 3


class TelemetryIngest:
    """Takes batches, those of one host one after the other."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._turns: dict[str, asyncio.Lock] = {}

    async def take(self, host: str, site: str, batch: TelemetryBatch) -> bool:
        """Store a batch unless it came before; tell whether it is new.

        Raises:
            Unavailable: the store cannot be used.
            Conflict: another process took from this host at the same time, again and again.
        """
        turn = self._turns.setdefault(host, asyncio.Lock())
        try:
            async with turn:
                return await asyncio.to_thread(self._take, host, site, batch)
        finally:
            if not turn.locked():
                self._turns.pop(host, None)

    def _take(self, host: str, site: str, batch: TelemetryBatch) -> bool:
        for attempt in range(TRIES):
            try:
                return self._try_to_take(host, site, batch)
            except Conflict:
                if attempt + 1 == TRIES:
                    raise
        return False

    def _try_to_take(self, host: str, site: str, batch: TelemetryBatch) -> bool:
        now = self._clock.now()
        found = self._store.telemetry_hosts([host])
        record = found[0] if found else HostTelemetry(host=host, site=site, received_at=now)
        stream = next((one for one in record.streams if one.name == batch.stream), Stream(name=batch.stream))
        received, fresh = add_number(stream.received, batch.number)
        if not fresh:
            return False
        second = int(now.timestamp())
        known = {one.key: one for one in self._store.telemetry_series(host=host)}
        block, unreadable = _read(batch, host)
        fitting = _fitting(block, known, since=second - KEEP_S, until=second + MAX_AHEAD_S)
        put = self._merged(host, fitting)
        ends = {key: max(windows) + block.resolution_s for key, windows in fitting.series.items()}
        ignored = block.samples - fitting.samples
        losses = batch.losses if batch.number >= received[-1][1] else stream.losses
        told = msgspec.structs.replace(
            stream,
            received=received,
            losses=losses,
            lost_at=now if _lost(losses) > _lost(stream.losses) else stream.lost_at,
            ignored=stream.ignored + ignored,
            unreadable=stream.unreadable + unreadable,
        )
        others = tuple(one for one in record.streams if one.name != batch.stream)
        self._store.put_telemetry(
            msgspec.structs.replace(
                record,
                site=site,
                received_at=now,
                newest=max([record.newest, *ends.values()]),
                streams=(*others[-(MAX_STREAMS - 1) :], told),
            ),
            series=_series(host, site, known, ends),
            put=put,
        )
        return True

    def _merged(self, host: str, block: Block) -> dict[ChunkName, Chunk]:
        """Return the chunks as they are with the windows of a block."""
        added = {
            name: windows
            for key, of in block.series.items()
            for name, windows in stretches(series_id(host, key), of, block.resolution_s).items()
        }
        there = self._store.telemetry_chunks(added.keys())
        return {
            name: chunk_of(merge_windows(there[name].windows, windows) if name in there else windows)
            for name, windows in added.items()
        }


def series_id(host: str, key: SeriesKey) -> str:
    """Return the id of a host's series: the same whenever it is asked for."""
    return hashlib.blake2b(msgspec.msgpack.encode((host, key)), digest_size=12).hexdigest()


def stretches(series: str, windows: Windows, resolution_s: int) -> dict[ChunkName, Windows]:
    """Return windows of one length by the chunk that they belong to."""
    span = SPANS[resolution_s]
    found: dict[ChunkName, dict[int, WindowValue]] = {}
    for begin, value in windows.items():
        name = ChunkName(series, resolution_s, begin - begin % span)
        found.setdefault(name, {})[begin] = value
    return dict(found)


def chunk_of(windows: Windows) -> Chunk:
    """Return windows, of which there is at least one, with all of them as one."""
    total = merge_all(windows[begin] for begin in sorted(windows))
    assert total is not None
    return Chunk(windows, total, len(windows))


def _lost(losses: Losses) -> int:
    return sum(losses.dropped.values())


def _read(batch: TelemetryBatch, host: str) -> tuple[Block, int]:
    """Return the block of a batch, and how many batches cannot be read: one that never will must not come for ever."""
    try:
        return decode_block(batch.block), 0
    except Rejected as error:
        _log.warning("telemetry.unreadable", host=host, number=batch.number, reason=error.message)
        return Block(MINUTE_S, {}), 1


def _fitting(block: Block, known: Mapping[SeriesKey, SeriesRecord], *, since: int, until: int) -> Block:
    """Return what of a block there is a place for: windows of a time that can be, of series there is room for."""
    room = MAX_SERIES_PER_HOST - len(known)
    series: dict[SeriesKey, Windows] = {}
    for key, windows in block.series.items():
        within = {begin: value for begin, value in windows.items() if since <= begin < until}
        room -= bool(within) and key not in known
        if within and (key in known or room >= 0):
            series[key] = within
    return Block(block.resolution_s, series)


def _series(
    host: str, site: str, known: Mapping[SeriesKey, SeriesRecord], ends: Mapping[SeriesKey, int]
) -> list[SeriesRecord]:
    """Return the series that are new, or have something newer."""
    return [
        SeriesRecord(id=series_id(host, key), host=host, site=site, key=key, newest=end)
        for key, end in ends.items()
        if key not in known or known[key].newest < end or known[key].site != site
    ]
