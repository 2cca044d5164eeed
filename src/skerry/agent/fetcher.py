"""Brings blobs: resumes at the byte, verifies before use, waits longer after each failure.

Downloads keep to the site's link budget and go by priority: while one is under way, none of a lower priority is.
Who is held back holds no connection. What hinders a download is told in `troubles`, by release digest.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path

import msgspec
import structlog

from skerry.agent.fetching_progress import ProgressMeter
from skerry.agent.limiting import LONGEST_PAUSE_S, Held, Limiter
from skerry.agent.retrying import Retry
from skerry.kit.digests import short
from skerry.kit.errors import Denied, SkerryError, Unavailable, Untrusted
from skerry.kit.quantities import format_size
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.link import Link
from skerry.spec.report import FetchProgress

_log = structlog.get_logger()

SPARE_BYTES = 32 << 20
LOOK_AGAIN_S = 30.0
"""Who is held back asks again this often at the latest: clocks are set, and budgets change."""


class Priority(IntEnum):
    """Who goes first; the lowest number does. Desired state and reports are never held back and not listed."""

    URGENT = 1
    RELEASE = 2
    TELEMETRY = 3
    PREFETCH = 4


class _Download(msgspec.Struct):
    """One release under way. `stop` ends it from any thread."""

    priority: Priority
    meter: ProgressMeter
    stop: threading.Event = msgspec.field(default_factory=threading.Event)
    flowing: bool = False


class _HeldBack(Exception):
    def __init__(self, held: Held) -> None:
        self.held = held


class Fetcher:
    """Fetches what releases need, in the background."""

    def __init__(  # noqa: PLR0913  (it borrows what the agent has)
        self,
        blobs: LocalBlobs,
        link: Link,
        clock: Clock,
        *,
        token: Callable[..., str],
        root: Path,
        limiter: Limiter,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """`pause` waits in a download's thread, for so many seconds or until its event is set."""
        self._blobs = blobs
        self._link = link
        self._clock = clock
        self._token = token
        self._root = root
        self._limiter = limiter
        self._pause = pause
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._downloads: dict[str, _Download] = {}
        self._meters: dict[str, ProgressMeter] = {}
        self._not_before: dict[str, tuple[float, int]] = {}
        self._retries: dict[str, Retry] = {}
        self.troubles: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None

    def want(
        self, release: str, blobs: Sequence[tuple[str, int]], *, priority: Priority = Priority.RELEASE
    ) -> None:
        """See to it that these blobs (digest, size) of a release come; again is harmless."""
        task = self._tasks.get(release)
        if task is not None and not task.done():
            if under_way := self._downloads.get(release):
                under_way.priority = priority
            return
        until, round_ = self._not_before.get(release, (0.0, -1))
        # Whom the link's budget holds back may go on at once when the budget is another.
        if until > self._clock.monotonic() and round_ in (-1, self._limiter.round):
            return
        meter = self._meters.setdefault(release, ProgressMeter())
        self._downloads[release] = _Download(priority, meter)
        self._tasks[release] = asyncio.create_task(self._fetch(release, tuple(blobs)))

    def forget(self, keep: set[str]) -> None:
        """Stop fetching for releases that are wanted no more."""
        for release in [release for release in self._tasks if release not in keep]:
            if download := self._downloads.pop(release, None):
                download.stop.set()
            self._tasks.pop(release).cancel()
            self._meters.pop(release, None)
            self._retries.pop(release, None)
            self._not_before.pop(release, None)
            self.troubles.pop(release, None)

    def progress(self) -> dict[str, FetchProgress]:
        """Return how far each release is that is not all here, by digest."""
        now = self._clock.monotonic()
        return {
            release: meter.tell(now, flowing=release in self._downloads and self._downloads[release].flowing)
            for release, meter in self._meters.items()
        }

    async def close(self) -> None:
        """Stop everything; what has arrived stays."""
        tasks = list(self._tasks.values())
        self.forget(set())
        await asyncio.gather(*tasks, return_exceptions=True)
        self._limiter.close()

    async def _fetch(self, release: str, blobs: Sequence[tuple[str, int]]) -> None:
        download = self._downloads[release]
        try:
            missing = [(digest, size) for digest, size in blobs if not self._blobs.has(digest)]
            here = sum(min(size, self._blobs.partial_size(digest)) for digest, size in missing)
            download.meter.begin(dict(missing), here)
            for digest, size in missing:
                if not self._blobs.has(digest):
                    await asyncio.to_thread(self._fetch_one, digest, size, download)
        except _HeldBack as back:
            self._hold(release, back.held)
        except SkerryError as error:
            self._fail(release, error)
        except OSError as error:
            # A disk that fails otherwise than by being full; without a pause we would spin.
            self._fail(release, Unavailable("disk.failed", f"the disk fails: {error.strerror or error}"))
        else:
            self._retries.pop(release, None)
            self.troubles.pop(release, None)
            self._meters.pop(release, None)
        finally:
            download.stop.set()
            if self._downloads.get(release) is download:
                del self._downloads[release]
            self.on_change()

    def _hold(self, release: str, held: Held) -> None:
        """Wait for the link's budget: that is no failure, and is not waited for longer each time."""
        wait_s = min(held.wait_s, LOOK_AGAIN_S)
        self._not_before[release] = (self._clock.monotonic() + wait_s, self._limiter.round)
        if self.troubles.get(release) != held.why:
            _log.info("fetch.held", release=short(release), why=held.why)
        self.troubles[release] = held.why

    def _fail(self, release: str, error: SkerryError) -> None:
        if isinstance(error, Denied):
            self._token(renew=True)
        wait_s = self._retries.setdefault(release, Retry()).next_wait_s()
        self._not_before[release] = (self._clock.monotonic() + wait_s, -1)
        if self.troubles.get(release) != error.message:
            _log.warning("fetch.failed", release=short(release), code=error.code, reason=error.message)
        self.troubles[release] = error.message

    def _fetch_one(self, digest: str, size: int, download: _Download) -> None:
        """Fetch one blob; blocking, in a thread."""
        if size == 0:
            self._blobs.put(digest, b"")
            return
        offset = self._blobs.partial_size(digest)
        if offset < size:
            self._check_room(size - offset)
        while offset < size:
            offset = self._fetch_part(digest, offset, size, download)
        try:
            self._blobs.finish(digest)
        except Untrusted:
            _log.error("blob.mismatch", digest=digest)
            raise

    def _fetch_part(self, digest: str, offset: int, size: int, download: _Download) -> int:
        """Fetch as much as may flow now and return the new offset."""
        token = self._token()
        if not token:
            raise Unavailable("fetch.waiting", "waiting for the upstream's leave to fetch")
        if self._outranked(download):
            raise _HeldBack(Held(1.0, "waiting for a more urgent download"))
        granted = self._limiter.ask(size - offset)
        if isinstance(granted, Held):
            raise _HeldBack(granted)
        wanted, came = offset + granted.size, _Counted()
        limit = None if wanted == size else granted.size
        try:
            download.flowing = True
            opened = self._link.blob(digest, offset=offset, token=token, limit=limit, rate=granted.rate)
            with opened as chunks:
                offset = self._blobs.append(
                    digest, self._paced(chunks, download, came), offset=offset, limit=size
                )
        finally:
            download.flowing = False
            self._limiter.give_back(max(0, granted.size - came.size))
        if offset < wanted and not came.paused:
            raise Unavailable("link.cut", f"blob {short(digest)} was cut off at {offset} of {size} bytes")
        return offset

    def _paced(self, chunks: Iterator[bytes], download: _Download, came: _Counted) -> Iterator[bytes]:
        """Yield chunks no faster than the budget allows; end early rather than hold a connection for long."""
        for chunk in chunks:
            came.size += len(chunk)
            download.meter.note(len(chunk))
            wait_s = self._limiter.take(len(chunk))
            yield chunk
            came.paused = wait_s > LONGEST_PAUSE_S or self._outranked(download)
            if came.paused or (wait_s and self._pause(download.stop, wait_s)) or download.stop.is_set():
                return

    def _outranked(self, download: _Download) -> bool:
        """Tell whether a more urgent download is under way; a stopped one gives way to all."""
        others = list(self._downloads.values())
        return any(other.priority < download.priority and not other.stop.is_set() for other in others)

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._root).free
        if free < needed + SPARE_BYTES:
            message = f"disk full: {format_size(needed)} to fetch, {format_size(free)} free"
            raise Unavailable("disk.full", message)


class _Counted(msgspec.Struct):
    """What came of a grant, and whether we ended it ourselves."""

    size: int = 0
    paused: bool = False
