"""Brings what releases need, in the background: deltas where they are cheaper, several blobs at a time on far links.

Downloads keep to the site's link budget and go by priority: while one is under way, none of a lower priority is. After
each failure it is waited for longer. What hinders a download is told in `troubles`, by release digest.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import msgspec
import structlog

from skerry.agent.fetching_progress import Fetched, ProgressMeter
from skerry.agent.finding_ways import Bases, WayFinder
from skerry.agent.retrying import Retry
from skerry.agent.transfer import Download, FetchParts, HeldBack, NotYet, Priority, Transfer
from skerry.carrier.limiting import Held
from skerry.delivery.ways import Way, WaysPlan
from skerry.kit.digests import short
from skerry.kit.errors import Denied, SkerryError, Unavailable
from skerry.kit.quantities import format_size
from skerry.spec.report import FetchProgress

__all__ = ["FetchParts", "Fetched", "Fetcher", "Priority"]

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger()

SPARE_BYTES = 32 << 20
LOOK_AGAIN_S = 30.0
"""Who is held back asks again this often at the latest: clocks are set, and budgets change."""
ASK_AGAIN_S = 15.0
MAX_STREAMS = 4
LOOK_NEAR_S = 0.3
"""Who waits for a neighbour to begin looks again this often."""
_ORDER = {"above": 0, "near": 1, "later": 2}
NEAR_S = 0.05
"""What answers within this time gains nothing by being asked for several things at once."""


class _Wanted(msgspec.Struct, frozen=True):
    """Blobs (digest, size) of a release, and what deltas to them may be made from."""

    release: str
    blobs: tuple[tuple[str, int], ...]
    bases: Bases


class Fetcher:
    """Fetches what releases need.

    `on_fetched` is told what came when all of a release's blobs have come. `make_room` is told how many bytes will be
    written, and which blobs are not to be removed for that; it raises when there is no room.
    """

    def __init__(self, parts: FetchParts, threads: Executor | None = None) -> None:
        self._parts = parts
        self._transfer = Transfer(parts, self._outranked)
        self._ways = WayFinder(parts, self._transfer)
        # Threads of its own: downloads last, and must not keep others from theirs.
        self._threads = threads or ThreadPoolExecutor(MAX_STREAMS, thread_name_prefix="fetch")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._downloads: dict[str, Download] = {}
        self._meters: dict[str, ProgressMeter] = {}
        self._not_before: dict[str, tuple[float, int]] = {}
        self._retries: dict[str, Retry] = {}
        self._waits: dict[str, set[str]] = {}
        self.troubles: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.make_room: Callable[[int, frozenset[str]], None] = self._check_room
        self.on_fetched: Callable[[str, Fetched], None] = lambda _, __: None

    def want(
        self,
        release: str,
        blobs: Sequence[tuple[str, int]],
        *,
        priority: Priority = Priority.RELEASE,
        bases: Callable[[], Bases] = dict,
    ) -> None:
        """See to it that these blobs (digest, size) of a release come; again is harmless.

        `bases` returns what deltas to them may be made from; it is asked when a download begins.
        """
        task = self._tasks.get(release)
        if task is not None and not task.done():
            if under_way := self._downloads.get(release):
                under_way.priority = priority
            return
        until, round_ = self._not_before.get(release, (0.0, -1))
        # Whom the link's budget holds back may go on at once when the budget is another.
        if until > self._parts.clock.monotonic() and round_ in (-1, self._parts.limiter.round):
            return
        meter = self._meters.setdefault(release, ProgressMeter())
        self._downloads[release] = Download(priority, meter)
        wanted = _Wanted(release, tuple(blobs), bases())
        self._tasks[release] = asyncio.create_task(self._fetch(wanted))

    def forget(self, keep: set[str]) -> None:
        """Stop fetching for releases that are wanted no more."""
        for release in [release for release in self._tasks if release not in keep]:
            if download := self._downloads.pop(release, None):
                download.stop.set()
            self._tasks.pop(release).cancel()
            self._meters.pop(release, None)
            self._retries.pop(release, None)
            self._not_before.pop(release, None)
            self._forget_waits(release)
            self.troubles.pop(release, None)

    def progress(self) -> dict[str, FetchProgress]:
        """Return how far each release is that is not all here, by digest."""
        now = self._parts.clock.monotonic()
        return {
            release: meter.tell(
                now, flowing=release in self._downloads and bool(self._downloads[release].flowing)
            )
            for release, meter in self._meters.items()
        }

    def uses(self) -> frozenset[str]:
        """Return the blobs that downloads under way fetch, and make others from."""
        return frozenset[str]().union(*(download.uses for download in self._downloads.values()))

    async def close(self) -> None:
        """Stop everything; what has arrived stays."""
        tasks = list(self._tasks.values())
        self.forget(set())
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._parts.limiter.close()

    async def _fetch(self, wanted: _Wanted) -> None:
        release = wanted.release
        download = self._downloads[release]
        try:
            await self._bring(wanted, download)
        except HeldBack as back:
            self._hold(release, back.held)
        except SkerryError as error:
            self._fail(release, error)
        except OSError as error:
            # A disk that fails otherwise than by being full; without a pause we would spin.
            self._fail(release, Unavailable("disk.failed", f"the disk fails: {error.strerror or error}"))
        else:
            self._retries.pop(release, None)
            self._forget_waits(release)
            self.troubles.pop(release, None)
            self._meters.pop(release, None)
            if download.meter.fetched.files:
                self.on_fetched(release, download.meter.fetched)
        finally:
            download.stop.set()
            if self._downloads.get(release) is download:
                del self._downloads[release]
            self.on_change()

    def _forget_waits(self, release: str) -> None:
        """Forget for how long a release was waited for; not after a failure, or failures would lift the bound."""
        self._ways.forget_wait(self._waits.pop(release, ()))

    async def _bring(self, wanted: _Wanted, download: Download) -> None:
        """Bring all blobs: those whose way is clear at once, then those whose delta was worth waiting for."""
        while missing := [
            (digest, size) for digest, size in wanted.blobs if not self._parts.blobs.has(digest)
        ]:
            plan = await self._in_thread(self._ways.plan, missing, wanted.bases, download)
            self._begin(plan, dict(missing), download.meter)
            if plan.ways:
                ways = self._reserve(plan.ways, download)
                if ways != plan.ways:
                    self._begin(msgspec.structs.replace(plan, ways=ways), dict(missing), download.meter)
                await self._take_all(ways, download)
                continue
            wait_s = min(plan.wait_s, ASK_AGAIN_S)
            self._waits.setdefault(wanted.release, set()).update(plan.waits)
            self.troubles[wanted.release] = f"waiting for a delta, for about {max(1, round(plan.wait_s))} s"
            self.on_change()
            await self._parts.clock.sleep(wait_s)
            self._ways.note_wait(plan.waits, wait_s)
            self.troubles.pop(wanted.release, None)

    def _begin(self, plan: WaysPlan, missing: Mapping[str, int], meter: ProgressMeter) -> None:
        sizes = {way.blob.digest: way.delta_bytes or way.blob.size_bytes for way in plan.ways}
        left = sum(way.left_bytes for way in plan.ways) + sum(missing[digest] for digest in plan.waits)
        waits = {digest: missing[digest] for digest in plan.waits}
        by_delta = {way.blob.digest for way in plan.ways if way.delta}
        meter.begin(sizes | waits, left, full=missing, by_delta=by_delta)

    async def _take_all(self, ways: Sequence[Way], download: Download) -> None:
        """Take ways, several at a time where each answer is long in coming; the first failure ends it.

        What no neighbour is about to bring goes first. After a failure of the link, what neighbours give is taken.
        """
        failures = list[Exception]()
        streams = min(MAX_STREAMS, len(ways), 1 + int(self._transfer.latency_s / NEAR_S))
        sizes = {way.delta or way.blob.digest: way.delta_bytes or way.blob.size_bytes for way in ways}
        with self._parts.sharing.wanting(sizes):
            sources = await self._in_thread(self._parts.sharing.survey, sizes)
            order = {digest: _ORDER[source.kind] for digest, source in sources.items()}
            queue = deque(sorted(ways, key=lambda way: order.get(way.delta or way.blob.digest, 0)))
            await asyncio.gather(*(self._take_some(queue, download, failures) for _ in range(streams)))
        if failures:
            raise failures[0]

    async def _take_some(self, queue: deque[Way], download: Download, failures: list[Exception]) -> None:
        in_vain = 0
        while queue and (not failures or download.near_only):
            way = queue.popleft()
            try:
                if not self._parts.blobs.has(way.blob.digest):
                    await self._in_thread(self._ways.take, way, download)
                in_vain = 0
            except NotYet:
                if download.near_only:
                    continue  # it is tried again with the next attempt
                queue.append(way)
                in_vain += 1
                if in_vain >= len(queue):
                    in_vain = 0
                    await self._parts.clock.sleep(LOOK_NEAR_S)
            except Exception as error:
                if self._parts.blobs.has(way.blob.digest):
                    continue  # another download, that was forgotten while it was at it, has brought it
                failures.append(error)  # raised by `_take_all`
                download.near_only = self._parts.sharing.active and _link_fails(error)

    async def _in_thread(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*arguments, **named))

    def _hold(self, release: str, held: Held) -> None:
        """Wait for the link's budget: that is no failure, and is not waited for longer each time."""
        wait_s = min(held.wait_s, LOOK_AGAIN_S)
        self._not_before[release] = (self._parts.clock.monotonic() + wait_s, self._parts.limiter.round)
        if self.troubles.get(release) != held.why:
            _log.info("fetch.held", release=short(release), why=held.why)
        self.troubles[release] = held.why

    def _fail(self, release: str, error: SkerryError) -> None:
        if isinstance(error, Denied):
            self._parts.token(renew=True)
        wait_s = self._retries.setdefault(release, Retry()).next_wait_s(error)
        self._not_before[release] = (self._parts.clock.monotonic() + wait_s, -1)
        if self.troubles.get(release) != error.message:
            _log.warning("fetch.failed", release=short(release), code=error.code, reason=error.message)
        self.troubles[release] = error.message

    def _outranked(self, download: Download) -> bool:
        """Tell whether a more urgent download is under way; a stopped one gives way to all."""
        others = list(self._downloads.values())
        return any(other.priority < download.priority and not other.stop.is_set() for other in others)

    def _reserve(self, ways: tuple[Way, ...], download: Download) -> tuple[Way, ...]:
        """Make room for these ways and return them; in full, where their deltas and bases have no room beside.

        Raises:
            Unavailable: there is no room either way.
        """
        try:
            self._make_room_for(ways, download)
        except Unavailable:
            in_full = tuple(Way(way.blob, way.blob.size_bytes - way.blob.held_bytes) for way in ways)
            if in_full == ways:
                raise
            self._make_room_for(in_full, download)
            return in_full
        return ways

    def _make_room_for(self, ways: Sequence[Way], download: Download) -> None:
        needed = sum(way.left_bytes + (way.blob.size_bytes if way.delta else 0) for way in ways)
        used = (digest for way in ways for digest in (way.blob.digest, way.delta, *way.base) if digest)
        download.uses = frozenset(used)
        self.make_room(needed, self.uses())

    def _check_room(self, needed: int, _: frozenset[str]) -> None:
        free = shutil.disk_usage(self._parts.root).free
        if free < needed + SPARE_BYTES:
            message = f"disk full: {format_size(needed)} to fetch, {format_size(free)} free"
            raise Unavailable("disk.full", message)


def _link_fails(error: Exception) -> bool:
    """Tell whether only what comes from above is hindered."""
    return isinstance(error, HeldBack) or (isinstance(error, SkerryError) and error.code.startswith("link."))
