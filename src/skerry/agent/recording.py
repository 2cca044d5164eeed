"""Records what is measured on a host: windows of a minute in memory, then blocks on the disk, then batches.

Rules: a power cut costs the minute under way, never more. The buffer stays within its bound: detail goes first, then
the oldest of what matters least (`skerry.telemetry.room`), and what goes is counted before it does. A batch is made
once: its bytes and its number stay the same until the hub has it, and nothing of it is changed meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.kit.errors import Rejected
from skerry.ports.telemetry_buffer import NewBlock, StoredBlock, TelemetryBuffer
from skerry.spec.telemetry import Losses, TelemetryBatch
from skerry.telemetry.blocks import (
    Block,
    coarsen_block,
    decode_block,
    encode_block,
    join_blocks,
    split_block,
)
from skerry.telemetry.naming import SeriesRoom
from skerry.telemetry.room import PRIORITIES, KeptBlock, Priority, plan_room
from skerry.telemetry.windows import HOUR_S, MINUTE_S, TEN_MINUTES_S, SeriesKey, WindowValue, merge_two

_log = structlog.get_logger()

MOST_BYTES = 56 << 20
MAX_SERIES = 2000
MAX_SERIES_PER_BLOCK = 500
MAX_BATCH_BYTES = 64 << 10
MAX_JOINED_BYTES = 128 << 10
JOINED_S = {MINUTE_S: HOUR_S, TEN_MINUTES_S: 24 * HOUR_S, HOUR_S: 240 * HOUR_S}
"""Over how long a time windows of each length become one block."""
MAX_WEIGHT = 4 << 20
MAX_PARTS = 240
FORGET_AFTER_S = HOUR_S
NUMBER, REFUSED, DROPPED = "number", "refused", "dropped."

Opened = dict[SeriesKey, WindowValue]


class BufferView(msgspec.Struct, frozen=True, kw_only=True):
    """How full a host's buffer is, and what was given up."""

    blocks: int
    used_bytes: int
    most_bytes: int
    oldest: int
    losses: Losses


class Recorder:
    """`record` is for the event loop and never waits for the disk; all else blocks, and belongs into threads."""

    def __init__(
        self, buffer: TelemetryBuffer, now: Callable[[], datetime], *, most_bytes: int = MOST_BYTES
    ) -> None:
        self._buffer = buffer
        self._now = now
        self._most_bytes = most_bytes
        self._turn = threading.Lock()
        self._disk = threading.Lock()
        self._open: dict[tuple[int, Priority], Opened] = {}
        self._room = SeriesRoom(MAX_SERIES)
        self._seen: dict[SeriesKey, int] = {}
        self._counts = dict(buffer.counts())
        self._refused_before = self._counts.get(REFUSED, 0)
        self.worst = ""

    def record(
        self,
        values: Mapping[SeriesKey, WindowValue],
        priority: Priority = "metrics",
        *,
        at: int | None = None,
    ) -> None:
        """Count values as of now, or of when they happened; those of series without room are refused and counted."""
        now = int(self._now().timestamp()) // MINUTE_S * MINUTE_S
        minute = now if at is None else at // MINUTE_S * MINUTE_S
        with self._turn:
            opened = self._open.setdefault((minute, priority), {})
            for key, value in values.items():
                if value.count <= 0:
                    continue
                if not self._room.admits(key):
                    self.worst = self._room.worst
                    continue
                self._seen[key] = now
                before = opened.get(key)
                opened[key] = value if before is None else merge_two(before, value)

    def refuse(self, samples: int, worst: str) -> None:
        """Count samples that were refused before they came here, and the name that most of them had."""
        with self._turn:
            self._refused_before += samples
            self.worst = worst or self.worst

    def flush(self, *, everything: bool = False) -> None:
        """Store the minutes that have ended, or `everything`, and keep the buffer within its bound.

        Raises:
            Unavailable: the disk is full; nothing is lost as long as there is room in memory.
        """
        minute = int(self._now().timestamp()) // MINUTE_S * MINUTE_S
        with self._disk:
            with self._turn:
                ended = [name for name in self._open if everything or name[0] != minute]
                taken = {name: self._open.pop(name) for name in ended}
                refused = self._refused_before + self._room.refused
                self._forget(minute)
            try:
                blocks = [
                    _new(part, priority)
                    for (_, priority), block in _hours(taken).items()
                    for part in split_block(block, MAX_SERIES_PER_BLOCK)
                ]
                if blocks or refused != self._counts.get(REFUSED, 0):
                    self._change(blocks, (), {REFUSED: refused})
            except BaseException:
                self._put_back(taken)
                raise
            if taken:
                self._join(minute)
                self._keep_within(minute)

    def next_batch(self) -> TelemetryBatch | None:
        """Return the oldest batch that the hub may not have, what matters most first; None when it has all.

        Raises:
            Unavailable: the disk is full.
        """
        with self._disk:
            kept = self._buffer.kept()
            sealed = next((one for one in kept if one.sealed), None)
            if sealed is None:
                sealed = self._seal(kept)
            if sealed is None:
                return None
            (stored,) = self._buffer.blocks([sealed.id])
            return TelemetryBatch(
                host="-",
                site="-",
                sequence=1,
                stream=self._buffer.stream,
                number=stored.block.number,
                block=stored.block.content,
                losses=self.losses(),
            )

    def note_taken(self, number: int) -> None:
        """Forget a batch that the hub has.

        Raises:
            Unavailable: the disk cannot be written; it is sent, and ignored, again.
        """
        with self._disk:
            sealed = [one.id for one in self._buffer.kept() if one.sealed]
            done = [one.id for one in self._buffer.blocks(sealed) if one.block.number == number]
            self._change((), done)

    def losses(self) -> Losses:
        """Return what was given up so far."""
        dropped = {
            name.removeprefix(DROPPED): count
            for name, count in self._counts.items()
            if name.startswith(DROPPED) and count
        }
        return Losses(dropped=dropped, refused=self._counts.get(REFUSED, 0), worst=self.worst)

    def view(self) -> BufferView:
        """Return how full the buffer is."""
        kept = self._buffer.kept()
        return BufferView(
            blocks=len(kept),
            used_bytes=sum(one.size_bytes for one in kept),
            most_bytes=self._most_bytes,
            oldest=min((one.begin for one in kept), default=0),
            losses=self.losses(),
        )

    def close(self) -> None:
        """Let go of the buffer."""
        self._buffer.close()

    def _forget(self, minute: int) -> None:
        """Make room for new series: those that were silent for an hour are as good as gone."""
        gone = [key for key, seen in self._seen.items() if seen < minute - FORGET_AFTER_S]
        self._room.forget(gone)
        for key in gone:
            del self._seen[key]

    def _put_back(self, taken: Mapping[tuple[int, Priority], Opened]) -> None:
        with self._turn:
            for name, values in taken.items():
                opened = self._open.setdefault(name, {})
                for key, value in values.items():
                    later = opened.get(key)
                    opened[key] = value if later is None else merge_two(value, later)

    def _join(self, minute: int) -> None:
        """Make one block of those of each hour, day or ten days that has ended: side by side they take far less."""
        alike: dict[tuple[Priority, int, int], list[int]] = {}
        for one in self._buffer.kept():
            span = JOINED_S.get(one.resolution_s, 0)
            small = one.size_bytes < MAX_JOINED_BYTES // 2
            if span and small and not one.sealed and (one.begin // span + 1) * span <= minute:
                alike.setdefault((one.priority, one.resolution_s, one.begin // span), []).append(one.id)
        for (priority, _, _), ids in alike.items():
            left = ids
            while len(left) > 1:
                parts, blocks = self._fitting(left, MAX_JOINED_BYTES)
                if len(parts) > 1:
                    self._change([_new(join_blocks(blocks), priority)], parts)
                left = left[max(len(parts), 1) :]

    def _keep_within(self, minute: int) -> None:
        while (plan := plan_room(self._buffer.kept(), self._most_bytes)).coarsen or plan.drop:
            for one, longer in plan.coarsen:
                parts, blocks = self._fitting([one.id], MAX_JOINED_BYTES)
                coarse = [_new(coarsen_block(block, longer), one.priority) for block in blocks]
                self._change(coarse, parts)
            if plan.coarsen:
                self._join(minute)
            if plan.drop:
                self._drop(self._buffer.blocks([one.id for one in plan.drop]))

    def _fitting(self, ids: Sequence[int], most_bytes: int) -> tuple[list[int], list[Block]]:
        """Return as many of these blocks, from the first on, as fit into one that every reader takes.

        One that cannot be read is dropped, and counted.
        """
        found: tuple[list[int], list[Block]] = ([], [])
        size = weight = 0
        for one in self._buffer.blocks(ids):
            try:
                block = decode_block(one.block.content)
            except Rejected:
                _log.exception("telemetry.damaged", begin=one.block.begin)
                self._drop([one])
                continue
            size, weight = size + len(one.block.content), weight + block.weight
            if found[0] and (size > most_bytes or weight > MAX_WEIGHT):
                break
            found[0].append(one.id)
            found[1].append(block)
        return found

    def _drop(self, stored: Sequence[StoredBlock]) -> None:
        counts: dict[str, int] = {}
        for one in stored:
            name = f"{DROPPED}{one.block.priority}"
            counts[name] = counts.get(name, self._counts.get(name, 0)) + one.block.samples
        self._change((), [one.id for one in stored], counts)

    def _seal(self, kept: Sequence[KeptBlock]) -> KeptBlock | None:
        """Make a batch of the oldest blocks of the highest priority, and give it a number."""
        if not kept:
            return None
        first = min(kept, key=lambda one: (PRIORITIES.index(one.priority), one.begin, one.id))
        alike = [
            one.id for one in kept if (one.priority, one.resolution_s) == (first.priority, first.resolution_s)
        ]
        parts, blocks = self._fitting(alike[:MAX_PARTS], MAX_BATCH_BYTES)
        if not blocks:
            return None
        number = self._counts.get(NUMBER, 0) + 1
        sealed = msgspec.structs.replace(_new(join_blocks(blocks), first.priority), number=number)
        self._change([sealed], parts, {NUMBER: number})
        return next((one for one in self._buffer.kept() if one.sealed), None)

    def _change(
        self, put: Sequence[NewBlock], remove: Sequence[int], counts: Mapping[str, int] | None = None
    ) -> None:
        self._buffer.change(put, remove, counts=counts or {})
        self._counts.update(counts or {})


def _hours(taken: Mapping[tuple[int, Priority], Opened]) -> dict[tuple[int, Priority], Block]:
    """Return one block for each hour: labels that come late may be of many minutes at once."""
    found: dict[tuple[int, Priority], dict[SeriesKey, dict[int, WindowValue]]] = {}
    for (begin, priority), opened in taken.items():
        of = found.setdefault((begin // HOUR_S, priority), {})
        for key, value in opened.items():
            of.setdefault(key, {})[begin] = value
    return {name: Block(MINUTE_S, dict(of)) for name, of in found.items()}


def _new(block: Block, priority: Priority) -> NewBlock:
    return NewBlock(
        priority=priority,
        begin=block.begin,
        resolution_s=block.resolution_s,
        samples=block.samples,
        content=encode_block(block),
    )
