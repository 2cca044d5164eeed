"""Keeps deltas: says which there are, has others made one after the other, and forgets those not used for long.

Rules:
- Nobody waits for a delta here: the answer is what there is now, and how long the rest will take.
- What hosts ask for goes before what rollouts are likely to need; both queues are bounded, and what one host may have
  in them, too.
- A record is stored before the delta is put on the disk and removed after it was taken off: what a crash leaves is a
  record without a delta, which the next question clears, never a delta that nobody counts.
- A delta that saves little is remembered as not worth it, and not kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable

import msgspec
import structlog

from skerry.delivery.relatives import MAX_BASE_BYTES, Base
from skerry.kit.digests import short
from skerry.kit.errors import Bug, SkerryError, as_failure
from skerry.ports.blobs import Blobs, ReadableBlobs
from skerry.ports.clock import Clock
from skerry.ports.delta_maker import DeltaMaker
from skerry.ports.hub_store import DeltaRecord, HubStore
from skerry.spec.carrier import DeltaAnswer, DeltaAvailable, DeltaComing, DeltaRequest

_log = structlog.get_logger()

Pair = tuple[Base, str]
"""Base and target."""

WORTH = 0.9
MAX_TARGET_BYTES = 8 << 30
MAX_QUEUED = 2000
MAX_QUEUED_BY_HOST = 64
MAX_NEW_BY_QUESTION = 64
MAX_KNOWN = 50_000
RETRY_S = 3600.0
FIRST_SPEED = 3e6
"""Effort a second, until one was made."""
START_EFFORT = 1 << 20
"""What beginning costs, however small the target: else small files would say that large ones take for ever."""


class DeltaLimits(msgspec.Struct, frozen=True):
    """How much disk deltas may take, and how many are made at a time; 0 makes none."""

    disk_bytes: int = 4 << 30
    workers: int = 1


class _Job(msgspec.Struct):
    """A delta to be made; `effort` is about how many bytes have to be coded for it."""

    effort: int
    hosts: set[str]
    began_at: float = 0.0


class DeltaShelf:
    """The deltas of a hub."""

    def __init__(
        self, store: HubStore, sources: ReadableBlobs, deltas: Blobs, maker: DeltaMaker, clock: Clock
    ) -> None:
        """Take the blobs that deltas are between, and where deltas are kept."""
        self._store = store
        self._sources = sources
        self._deltas = deltas
        self.readable = EitherBlobs(sources, deltas)
        self._maker = maker
        self._clock = clock
        self.limits = DeltaLimits()
        self._known: OrderedDict[Pair, DeltaRecord] | None = None  # those used last at the end
        self._asked: OrderedDict[Pair, _Job] = OrderedDict()
        self._ahead: OrderedDict[Pair, _Job] = OrderedDict()
        self._under_way: dict[Pair, _Job] = {}
        self._not_before: dict[Pair, float] = {}
        self._speed = FIRST_SPEED
        self._loading = asyncio.Lock()
        self._wake = asyncio.Event()

    async def answer(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        """Return which deltas there are to what a host wants, and have the most promising others made."""
        available: list[DeltaAvailable] = []
        coming: list[Pair] = []
        new = 0
        for question in request.wanted:
            has_better = False
            for base in question.bases:
                pair = (base, question.target)
                record = await self._record(pair)
                if record is not None:
                    if record.delta:
                        available.append(_available(pair, record))
                        has_better = True
                    continue
                if has_better:  # what promises less is told, but not made
                    continue
                new += not self._is_queued(pair)
                if new <= MAX_NEW_BY_QUESTION and await self._ask_for(pair, host):
                    coming.append(pair)
                    has_better = True
        known, left_s = await self._load(), self._lefts()
        # What was made while we looked at the others is there by now.
        made = [pair for pair in coming if pair not in left_s and pair in known and known[pair].delta]
        return DeltaAnswer(
            available=(*available, *(_available(pair, known[pair]) for pair in made)),
            coming=tuple(
                DeltaComing(target=pair[1], base=pair[0], left_s=left_s[pair])
                for pair in coming
                if pair in left_s
            ),
        )

    async def prepare(self, pairs: Iterable[Pair]) -> None:
        """Have deltas made that will be needed; those that are there, or do not fit the queue, are left out."""
        for pair in pairs:
            if await self._record(pair) is None and not self._is_queued(pair):
                job = await self._job(pair)
                is_new = job is not None and not self._is_settled(pair)
                if job is not None and is_new and len(self._ahead) < MAX_QUEUED:
                    self._ahead[pair] = job
                    self._wake.set()

    async def sizes(self, pairs: Iterable[Pair]) -> dict[Pair, int | None]:
        """Return what deltas take in bytes; None for those that are being made, nothing for those that there are not.

        For one that is not worth it, this is the size of its target.
        """
        found: dict[Pair, int | None] = {}
        for pair in pairs:
            record = await self._record(pair)
            if record is not None:
                size = record.size_bytes if record.delta else await self._sources.size(pair[1])
                if size is not None:
                    found[pair] = size
            elif self._is_queued(pair):
                found[pair] = None
        return found

    def left_s(self, pairs: Iterable[Pair]) -> float:
        """Return how long it takes until the last of these is made, as far as one can tell."""
        left_s = self._lefts()
        return max((left_s[pair] for pair in pairs if pair in left_s), default=0.0)

    async def run_forever(self) -> None:
        """Make what is queued, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.limits.workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            pair, job = await self._next()
            self._under_way[pair] = job
            began = job.began_at = self._clock.monotonic()
            try:
                await self._make(pair)
            except Exception as caught:
                self._note_failure(pair, as_failure(caught))
            else:
                took_s = self._clock.monotonic() - began
                if took_s > 0:
                    self._speed += 0.3 * (job.effort / took_s - self._speed)
            finally:
                del self._under_way[pair]

    async def _next(self) -> tuple[Pair, _Job]:
        while not (self._asked or self._ahead):
            self._wake.clear()
            await self._wake.wait()
        return (self._asked or self._ahead).popitem(last=False)

    async def _make(self, pair: Pair) -> None:
        base, target = pair
        size = await self._sources.size(target)
        made = await self._maker.make(base, target)
        try:
            worth = size is not None and made.size_bytes <= min(WORTH * size, self.limits.disk_bytes)
            record = DeltaRecord(
                base="+".join(base),
                target=target,
                delta=made.digest if worth else "",
                size_bytes=made.size_bytes,
                made_at=self._clock.now(),
            )
            await asyncio.to_thread(self._store.put_delta, record)
            if worth:
                await self._deltas.adopt(made.digest, made.file)
        finally:
            made.file.unlink(missing_ok=True)
        known = await self._load()
        known[pair] = record
        known.move_to_end(pair)
        _log.info(
            "delta.made", target=short(target), of=size, bytes=made.size_bytes, bases=len(base), worth=worth
        )
        await self._make_room()

    def _note_failure(self, pair: Pair, error: SkerryError) -> None:
        now = self._clock.monotonic()
        self._not_before = {one: until for one, until in self._not_before.items() if until > now}
        self._not_before[pair] = now + RETRY_S
        cause = error.__cause__ if isinstance(error, Bug) else None
        _log.warning(
            "delta.not_made", target=short(pair[1]), code=error.code, reason=error.message, exc_info=cause
        )

    async def _make_room(self) -> None:
        """Forget the deltas that were not used for longest."""
        known = await self._load()
        taken = sum(record.size_bytes for record in known.values() if record.delta)
        for pair, record in list(known.items()):
            is_full = taken > self.limits.disk_bytes
            if not is_full and len(known) <= MAX_KNOWN:
                return
            if known.get(pair) is record and (record.delta or not is_full):
                await self._forget(pair, record)
                taken -= record.size_bytes if record.delta else 0

    async def _forget(self, pair: Pair, record: DeltaRecord) -> None:
        known = await self._load()
        known.pop(pair, None)
        if record.delta and not any(other.delta == record.delta for other in known.values()):
            await self._deltas.remove(record.delta)
        await asyncio.to_thread(self._store.remove_delta, record.base, record.target)

    async def _load(self) -> OrderedDict[Pair, DeltaRecord]:
        if self._known is None:
            async with self._loading:
                if self._known is None:
                    records = await asyncio.to_thread(self._store.deltas)
                    self._known = OrderedDict((_pair(record), record) for record in records)
        return self._known

    async def _record(self, pair: Pair) -> DeltaRecord | None:
        """Return what is known of a pair, and note that it was asked for."""
        known = await self._load()
        record = known.get(pair)
        if record is None:
            return None
        known.move_to_end(pair)
        # One that was cut short counts as gone: a host that was sent to it would never come to its end.
        is_gone = bool(record.delta) and await self._deltas.size(record.delta) != record.size_bytes
        if known.get(pair) is not record:  # forgotten or made anew meanwhile
            return known.get(pair)
        if is_gone:
            await self._forget(pair, record)
            return None
        return record

    def _is_queued(self, pair: Pair) -> bool:
        return pair in self._under_way or pair in self._asked or pair in self._ahead

    def _is_settled(self, pair: Pair) -> bool:
        """Tell whether a pair was made, or will be, since one last looked."""
        return self._is_queued(pair) or (self._known is not None and pair in self._known)

    async def _ask_for(self, pair: Pair, host: str) -> bool:
        """Put a pair where a host that waits for it is served; tell whether it will be made."""
        if pair in self._under_way:
            return True
        job = self._asked.get(pair) or self._ahead.get(pair)
        if job is None:
            job = await self._job(pair)
            if self._is_settled(pair):  # somebody else was faster
                return True
        mine = sum(host in one.hosts for one in self._asked.values())
        if job is None or mine >= MAX_QUEUED_BY_HOST or len(self._asked) >= MAX_QUEUED:
            return job is not None and self._is_queued(pair)
        job.hosts.add(host)
        self._ahead.pop(pair, None)
        self._asked[pair] = job
        self._wake.set()
        return True

    async def _job(self, pair: Pair) -> _Job | None:
        """Return the job of a pair that can be made."""
        base, target = pair
        if self.limits.workers < 1 or self._not_before.get(pair, 0.0) > self._clock.monotonic():
            return None
        sizes = [await self._sources.size(one) for one in (target, *base)]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes) or known[0] > MAX_TARGET_BYTES or sum(known[1:]) > MAX_BASE_BYTES:
            return None
        return _Job(START_EFFORT + known[0] + sum(known[1:]) // 8, set())

    def _lefts(self) -> dict[Pair, float]:
        """Return in how long each pair is made: after what is left of those under way, and what is queued before it."""
        now, workers = self._clock.monotonic(), max(1, self.limits.workers)
        left_s = {
            pair: max(1.0, job.effort / self._speed - (now - job.began_at))
            for pair, job in self._under_way.items()
        }
        before_s = sum(left_s.values())
        for queue in (self._asked, self._ahead):
            for pair, job in queue.items():
                before_s += job.effort / self._speed
                left_s[pair] = before_s / workers
        return left_s


def _pair(record: DeltaRecord) -> Pair:
    return tuple(record.base.split("+")) if record.base else (), record.target


def _available(pair: Pair, record: DeltaRecord) -> DeltaAvailable:
    base, target = pair
    return DeltaAvailable(target=target, base=base, delta=record.delta, size_bytes=record.size_bytes)


class EitherBlobs(ReadableBlobs):
    """What hosts read: blobs of releases, and deltas."""

    def __init__(self, first: ReadableBlobs, second: ReadableBlobs) -> None:
        self._first = first
        self._second = second

    async def size(self, digest: str) -> int | None:
        """Return the length in bytes, or None when the blob is in neither."""
        size = await self._first.size(digest)
        return size if size is not None else await self._second.size(digest)

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield bytes of a blob from where it is."""
        held = self._first if await self._first.size(digest) is not None else self._second
        async for chunk in held.read(digest, start=start, end=end):
            yield chunk
