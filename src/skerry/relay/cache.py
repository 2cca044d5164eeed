"""The relay's blobs: kept by digest, fetched once however many ask, and let go of when others need the room.

Rules: what is handed out was verified (see `kept_blobs`), or is being fetched and ends only when it was (see
`arrivals`). Room is made by letting go of what was not used for longest; `wanted` blobs stay while there are others,
and blobs that somebody reads stay. Blobs never take the room on the disk that reports need: one that has no room
beside them is not begun. One that is larger than the cache passes through (see `passing`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog

from skerry.carrier.retrying import Retry
from skerry.kit.digests import parse_digest, short
from skerry.kit.errors import Conflict, Missing, SkerryError, Unavailable, Untrusted, as_failure
from skerry.kit.quantities import format_size
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.relay.arrivals import Arrival, Source, fetch_arrival
from skerry.relay.kept_blobs import KeptBlobs
from skerry.relay.once import Once
from skerry.relay.passing import Passing
from skerry.spec.relay import CacheView

_log = structlog.get_logger()

CHUNKS = ((8, 512 << 10), (32, 256 << 10))
SMALL_CHUNK_BYTES = 64 << 10
"""How much is read and sent at a time for up to so many readers, and for more: few large ones cost the least, and each
reader holds some in memory."""
MAX_FETCHES = 8
READ_THREADS = 4
MAX_ATTEMPTS = 5
MAX_SIZES = 10_000
MAX_BLOB_BYTES = 1 << 42
REFUSED_S = 10.0


class BlobCache:
    """A `ReadableBlobs` in front of the upstream. Lives in one event loop."""

    def __init__(
        self,
        blobs: LocalBlobs,
        source: Source,
        clock: Clock,
        *,
        limit_bytes: int = 20 << 30,
        room: Callable[[], int] = lambda: 1 << 62,
    ) -> None:
        """`room` returns how many bytes of the disk blobs may still take; less than none when it is too full."""
        self._room = room
        self._blobs = blobs
        self._source = source
        self._clock = clock
        self.limit_bytes = limit_bytes
        self.on_came: Callable[[int], None] = lambda _: None
        self._arrivals: dict[str, Arrival] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = Once[str, int | None]()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._refused: dict[str, float] = {}
        self._wanted: Mapping[str, int] = {}
        self._readers = 0
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self._passing = Passing(source, on_came=self._came)
        self._fetching = ThreadPoolExecutor(MAX_FETCHES + 1, "fetch")
        self._reading = ThreadPoolExecutor(READ_THREADS, "read")
        self._kept = KeptBlobs(blobs, clock, self._reading)
        self._entries = self._kept.entries
        self._counts: dict[str, int] = dict.fromkeys(("hits", "misses", "hit_bytes", "fetched", "damaged"), 0)

    def load(self) -> None:
        """Take note of the blobs that are on disk. Blocking; before anything else."""
        self._kept.load()

    @property
    def used_bytes(self) -> int:
        """What blobs take of the disk, those on their way included."""
        return sum(entry.size for entry in self._entries.values()) + sum(
            arrival.have for arrival in self._arrivals.values()
        )

    def want(self, wanted: Mapping[str, int]) -> None:
        """Keep these blobs (size by digest, the most urgent first) while there are others."""
        self._wanted = wanted
        self._trim(0)

    def view(self) -> CacheView:
        """Return how full it is and what it spared."""
        counts = self._counts
        return CacheView(
            blobs=len(self._entries),
            used_bytes=self.used_bytes,
            limit_bytes=self.limit_bytes,
            wanted=len(self._wanted),
            wanted_here=sum(digest in self._entries for digest in self._wanted),
            hits=counts["hits"],
            misses=counts["misses"],
            hit_bytes=counts["hit_bytes"],
            fetched_bytes=counts["fetched"] + sum(one.came for one in self._arrivals.values()),
            damaged=counts["damaged"] + self._kept.damaged,
        )

    def missing(self) -> list[tuple[str, int]]:
        """Return the wanted blobs (digest, size) that are not here, the most urgent first."""
        return [item for item in self._wanted.items() if item[0] not in self._entries]

    def has_room(self, digest: str) -> bool:
        """Tell whether a wanted blob fits beside those that are more urgent."""
        size = 0
        for more_urgent, needed in self._wanted.items():
            if more_urgent == digest:
                return size + needed - self._blobs.partial_size(digest) <= self._most_bytes()
            size += needed if more_urgent in self._entries else 0
        return False

    def has(self, digest: str) -> bool:
        """Tell whether a blob is on disk; it was perhaps not verified in this run."""
        return digest in self._entries

    def has_room_for(self, sizes: Mapping[str, int]) -> bool:
        """Tell whether all of these (size by digest) fit at a time, beside the wanted ones that are here."""
        kept = {digest: entry.size for digest, entry in self._entries.items() if digest in self._wanted}
        return sum((kept | dict(sizes)).values()) <= self.limit_bytes

    async def take_in(self, files: Mapping[str, Path]) -> None:
        """Take blobs that came by another way, as files of the same disk by digest, which are gone then.

        They count as just used. Fetches of them that are under way end. A file need not be there if its blob is here.

        Raises:
            Missing: neither a file nor its blob is here (`blob.unknown`).
            Untrusted: a file is another blob.
            Unavailable: one cannot be moved.
        """
        # Those that are here first, so that none of them makes room for the others.
        for digest in sorted(map(parse_digest, files), key=lambda one: one not in self._entries):
            if not await self._kept.is_sound(digest):
                await self._adopt(digest, files[digest])
            if (entry := self._entries.get(digest)) is not None:
                self._kept.note_use(digest, entry)
        self._trim(0)

    async def size(self, digest: str) -> int | None:
        """Return a blob's length once its bytes are here or come; None when there is none upstream.

        Raises:
            Unavailable: it is not here, and does not come now.
        """
        digest = parse_digest(digest)
        if await self._kept.is_sound(digest):
            return self._entries[digest].size
        arrival = self._arrivals.get(digest)
        try:
            if arrival is None:
                size = await self._ask_size(digest)
                if size is None:
                    return None
                if size > self.limit_bytes:
                    self._check_refused(digest)
                    self._passing.check()
                    return size
                arrival = self.bring(digest, size, urgent=True)
            arrival.urgent = True
            await arrival.begun()
        except Missing:
            return None
        except Untrusted as error:
            raise Unavailable("relay.bad_blob", "what came from above was not that blob") from error
        return arrival.size

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield bytes as they are here.

        Raises:
            Unavailable: they do not come; what was yielded until then is not to be used.
        """
        digest = parse_digest(digest)
        size = await self.size(digest)
        if size is None:
            raise Missing("blob.unknown", f"there is no blob {digest}")
        stop = size if end is None else min(end, size)
        self._readers += 1
        try:
            arrival = self._arrivals.get(digest)
            if arrival is None and digest not in self._entries:
                self._counts["misses"] += 1
                async for chunk in self._read_passing(digest, size, start, stop):
                    yield chunk
            elif arrival is None or arrival.elsewhere:
                self._counts["hits"] += 1
                async for chunk in self._read_whole(digest, start, stop):
                    self._counts["hit_bytes"] += len(chunk)
                    yield chunk
            else:
                self._counts["misses"] += 1
                async for chunk in self._read_arriving(arrival, start, stop):
                    yield chunk
        finally:
            self._readers -= 1

    def bring(self, digest: str, size: int, *, urgent: bool) -> Arrival:
        """Fetch a blob, or join those who wait for it.

        Raises:
            Unavailable: what came of it a moment ago was another blob (`relay.bad_blob`).
        """
        arrival = self._arrivals.get(digest)
        if arrival is not None:
            arrival.urgent = arrival.urgent or urgent
            return arrival
        self._check_refused(digest)
        arrival = self._arrivals[digest] = Arrival(digest, size, urgent=urgent, on_came=self._came)
        task = asyncio.create_task(self._bring(arrival))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return arrival

    def _check_refused(self, digest: str) -> None:
        if self._refused.get(digest, 0.0) > self._clock.monotonic():
            raise Unavailable("relay.bad_blob", f"what came from above was not blob {short(digest)}")

    async def verify_forever(self) -> None:
        """Read and verify what was on disk at the start, and each blob again a day after it was verified."""
        await self._kept.verify_forever()

    async def close(self) -> None:
        """End all fetches; what came of them stays."""
        for arrival in self._arrivals.values():
            arrival.stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._asking.close()
        await self._kept.close()
        self._passing.close()
        self._fetching.shutdown(wait=False, cancel_futures=True)
        self._reading.shutdown(wait=False, cancel_futures=True)

    async def _bring(self, arrival: Arrival) -> None:
        failed: SkerryError | None = None
        try:
            self._reserve(arrival)
            try:
                await self._attempt(arrival)
            except SkerryError:
                if not arrival.elsewhere:
                    raise
            self._kept.add(arrival.digest).readers += arrival.readers
        except asyncio.CancelledError:
            failed = Unavailable("relay.stopping", "the relay is going")
            raise
        except Exception as error:
            failed = as_failure(error)
        finally:
            self._counts["fetched"] += arrival.came
            del self._arrivals[arrival.digest]
            if isinstance(failed, Untrusted):
                self._refuse(arrival.digest)
            arrival.end(failed)
        self._trim(0)

    async def _adopt(self, digest: str, file: Path) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._blobs.adopt, digest, file)
        self._kept.add(digest)
        if (arrival := self._arrivals.get(digest)) is not None:
            arrival.elsewhere = True

    async def _attempt(self, arrival: Arrival) -> None:
        """Fetch, and go on after failures for as long as somebody waits or bytes come."""
        retry, attempts = Retry(), 0
        loop = asyncio.get_running_loop()
        while not arrival.elsewhere:
            came = arrival.came
            try:
                async with self._slots if arrival.urgent else contextlib.nullcontext():
                    await loop.run_in_executor(
                        self._fetching,
                        fetch_arrival,
                        arrival,
                        self._blobs,
                        self._source,
                        lambda: self._gives_way(arrival),
                    )
                return
            except Conflict:
                # Another fetch of it has just gone on: an earlier one that was not quite over.
                attempts += 1
                if attempts >= MAX_ATTEMPTS:
                    raise
            except Unavailable as error:
                if arrival.came > came:
                    retry, attempts = Retry(), 0
                attempts += 1
                if error.code == "disk.full" and attempts < MAX_ATTEMPTS and self._let_go_one():
                    continue
                if error.code == "relay.gave_way" and arrival.urgent:
                    continue  # somebody has begun to wait for it meanwhile
                if error.code == "disk.full":
                    # What others leave of the disk is for reports.
                    await asyncio.to_thread(self._blobs.remove, arrival.digest)
                    raise
                if not arrival.readers or attempts >= MAX_ATTEMPTS or error.code == "relay.link_held":
                    raise
                await self._clock.sleep(retry.next_wait_s())

    def _gives_way(self, arrival: Arrival) -> bool:
        """Tell whether a fetch is in vain, or hinders one that somebody waits for. From any thread."""
        if arrival.elsewhere:
            return True
        return not arrival.urgent and any(one.urgent for one in list(self._arrivals.values()))

    def _came(self, size: int) -> None:
        self.on_came(size)  # which is set later

    def _refuse(self, digest: str) -> None:
        now = self._clock.monotonic()
        self._counts["damaged"] += 1
        self._sizes.pop(digest, None)
        self._refused = {one: until for one, until in self._refused.items() if until > now}
        self._refused[digest] = now + REFUSED_S
        _log.error("blob.mismatch", digest=digest)

    async def _read_whole(self, digest: str, start: int, stop: int) -> AsyncIterator[bytes]:
        entry = self._entries[digest]
        entry.readers += 1
        try:
            self._kept.note_use(digest, entry)
            async for chunk in self._read_present(digest, start, stop):
                yield chunk
        finally:
            entry.readers -= 1

    async def _read_passing(self, digest: str, size: int, start: int, stop: int) -> AsyncIterator[bytes]:
        try:
            async with contextlib.aclosing(
                self._passing.read(digest, size, start=start, stop=stop)
            ) as chunks:
                async for chunk in chunks:
                    self._counts["fetched"] += len(chunk)
                    yield chunk
        except Untrusted as error:
            self._refuse(digest)
            raise Unavailable("blob.cut", "the blob did not come whole: it was another one") from error

    async def _read_arriving(self, arrival: Arrival, start: int, stop: int) -> AsyncIterator[bytes]:
        arrival.readers += 1
        offset = start
        try:
            while offset < stop:
                if (shown := min(arrival.shown, stop)) <= offset:
                    _check_not_failed(arrival)
                    await arrival.change()
                    continue
                async for chunk in self._read_present(arrival.digest, offset, shown):
                    offset += len(chunk)
                    yield chunk
        except Unavailable:
            # What came may be taken away a moment before its fetch has ended, which knows why.
            while not arrival.ended:
                await arrival.change()
            _check_not_failed(arrival)
            raise
        finally:
            arrival.readers -= 1
            if (entry := self._entries.get(arrival.digest)) is not None and arrival.whole:
                entry.readers -= 1

    async def _read_present(self, digest: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield bytes that are on disk; the next part is read while this one is sent."""
        loop = asyncio.get_running_loop()

        def begin(start: int) -> asyncio.Future[bytes]:
            fitting = (size for readers, size in CHUNKS if self._readers <= readers)
            size = min(next(fitting, SMALL_CHUNK_BYTES), stop - start)
            return loop.run_in_executor(self._reading, self._blobs.read_part, digest, start, size)

        coming = begin(start) if start < stop else None
        try:
            while coming is not None:
                chunk, coming = await coming, None
                if not chunk:
                    raise Unavailable("blob.cut", "the blob is not on disk any more")
                start += len(chunk)
                coming = begin(start) if start < stop else None
                yield chunk
        finally:
            if coming is not None:
                coming.cancel()

    async def _ask_size(self, digest: str) -> int | None:
        known = self._wanted.get(digest) or self._sizes.get(digest)
        if known is not None:
            return known
        return await self._asking.once(digest, partial(self._ask_above, digest))

    async def _ask_above(self, digest: str) -> int | None:
        token = self._source.token()
        if not token:
            raise Unavailable("relay.no_token", "there is no leave from above to fetch blobs yet")
        size = await asyncio.to_thread(self._source.link.blob_size, digest, token=token)
        if size is not None and size <= MAX_BLOB_BYTES:
            self._sizes[digest] = size
            while len(self._sizes) > MAX_SIZES:
                self._sizes.popitem(last=False)
        return size

    def _free(self) -> int:
        """Return what is left of the disk for blobs beside what is on its way."""
        return self._room() - sum(one.size - one.have for one in self._arrivals.values() if one.flows)

    def _most_bytes(self) -> int:
        """Return what blobs may take of the disk as it is now."""
        return min(self.limit_bytes, self.used_bytes + self._free())

    def _reserve(self, arrival: Arrival) -> None:
        """Make room for what is missing of a blob.

        Raises:
            Unavailable: there would be none, whatever were let go of (`relay.disk_full`).
        """
        left = arrival.size - self._blobs.partial_size(arrival.digest)
        idle = sum(entry.size for entry in self._entries.values() if not entry.readers)
        if left > self._free() + idle:
            raise Unavailable(
                "relay.disk_full", f"the relay's disk has no room for a blob of {format_size(arrival.size)}"
            )
        self._trim(left)

    def _trim(self, needed: int) -> None:
        """Let go of blobs until `needed` bytes fit, as far as may be."""
        surplus = self.used_bytes + needed - self._most_bytes()
        while surplus > 0 and (gone := self._let_go_one()):
            surplus -= gone

    def _let_go_one(self) -> int:
        """Let go of the blob that matters least, and return its size; 0 when none may go."""
        return self._kept.let_go_one(self._wanted, self._arrivals.keys())


def _check_not_failed(arrival: Arrival) -> None:
    if arrival.failed is not None:
        raise Unavailable("blob.cut", f"the blob did not come whole: {arrival.failed.message}")
