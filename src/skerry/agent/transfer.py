"""Brings the bytes of one blob, from above or from a neighbour: from where they stopped, verified at the end.

Blocking, for worker threads. Who is held back by the link's budget, or by a more urgent download, holds no connection.
What comes from a neighbour is no matter of the link's budget.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

import msgspec
import structlog

from skerry.agent.fetching_progress import ProgressMeter
from skerry.agent.sharing import Sharing
from skerry.carrier.limiting import LONGEST_PAUSE_S, Held, Limiter
from skerry.kit.digests import short
from skerry.kit.errors import Denied, SkerryError, Unavailable, Untrusted
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.link import Link

_log = structlog.get_logger()

_LATEST = 0.3
"""How much the newest measurement counts."""
TOLD_BYTES = 1 << 20
"""Of smaller blobs the log does not say where they come from."""
_SPEED_BYTES = 64 << 10
"""Less says nothing about how fast a link is."""


class Priority(IntEnum):
    """Who goes first; the lowest number does. Desired state and reports are never held back and not listed."""

    URGENT = 1
    RELEASE = 2
    TELEMETRY = 3
    PREFETCH = 4


class FetchParts(msgspec.Struct, frozen=True):
    """What downloads work with. `pause` waits in a download's thread, for so long or until its event is set."""

    blobs: LocalBlobs
    link: Link
    clock: Clock
    token: Callable[..., str]
    root: Path
    limiter: Limiter
    sharing: Sharing = msgspec.field(default_factory=lambda: Sharing(""))
    pause: Callable[[threading.Event, float], object] = threading.Event.wait


class Download(msgspec.Struct):
    """One release under way.

    `stop` ends it from any thread; `flowing` are the blobs that come now, `uses` all that must not be removed.
    `near_only`: nothing comes from above at the moment, and what neighbours give still does.
    """

    priority: Priority
    meter: ProgressMeter
    stop: threading.Event = msgspec.field(default_factory=threading.Event)
    flowing: set[str] = msgspec.field(default_factory=set[str])
    uses: frozenset[str] = frozenset()
    near_only: bool = False


class HeldBack(Exception):
    """A download may not go on now; that is no failure."""

    def __init__(self, held: Held) -> None:
        self.held = held


class NotYet(Exception):
    """A neighbour is to fetch a blob and has not begun; look again in a moment. That is no failure."""

    def __init__(self, why: str) -> None:
        self.why = why


class Transfer:
    """Brings blobs. `outranked` tells whether a download has to give way.

    `latency_s` and `speed` (bytes per second) are what the link showed lately, 0 and None before it did.
    """

    def __init__(self, parts: FetchParts, outranked: Callable[[Download], bool]) -> None:
        self._parts = parts
        self._outranked = outranked
        self.latency_s = 0.0
        self.speed: float | None = None

    def fetch(self, digest: str, size: int, download: Download) -> None:
        """Fetch one blob.

        Raises:
            HeldBack: it may not go on now.
            NotYet: a neighbour is to fetch it.
            Unavailable: it was cut off, the disk is full, or there is no leave to fetch yet.
            Untrusted: what came is not the blob; it is removed.
        """
        blobs = self._parts.blobs
        if size == 0:
            blobs.put(digest, b"")
            return
        while not self._bring(digest, size, download):
            pass

    def _bring(self, digest: str, size: int, download: Download) -> bool:
        """Bring a blob, or what its source of now gives of it; tell whether it is here."""
        sharing = self._parts.sharing
        offset = self._parts.blobs.partial_size(digest)
        if offset >= size:
            return self._finish(digest)
        if download.near_only:
            sharing.step_back(digest)
        source = sharing.source(digest)
        if source.kind == "later":
            raise NotYet(source.why)
        if sharing.active and size >= TOLD_BYTES:
            _log.info("blob.source", blob=short(digest), source=source.kind, why=source.why, offset=offset)
        if source.kind == "near":
            return self._fetch_near(source.host, digest, size, download) >= size and self._finish(digest)
        try:
            if download.near_only:
                raise NotYet(source.why)
            while offset < size:
                offset = self._fetch_part(digest, offset, size, download)
            return self._finish(digest)
        except (HeldBack, Unavailable, Denied):
            sharing.step_back(digest)
            raise
        finally:
            sharing.settle(digest)

    def _finish(self, digest: str) -> bool:
        """Verify what came; False when it was wrong and a neighbour gave some of it: then it is begun again."""
        try:
            self._parts.blobs.finish(digest)
        except Untrusted:
            _log.error("blob.mismatch", digest=digest)
            if self._parts.sharing.blame(digest):
                return False
            raise
        self._parts.sharing.complete(digest)
        return True

    def _fetch_near(self, host: str, digest: str, size: int, download: Download) -> int:
        """Fetch from a neighbour what it gives, and return the new offset; that it failed is noted."""
        parts, came = self._parts, _Came()
        offset = parts.blobs.partial_size(digest)
        if download.stop.is_set():
            raise Unavailable("fetch.stopped", "nobody wants it any more")
        if self._outranked(download):
            raise HeldBack(Held(1.0, "waiting for a more urgent download"))
        download.flowing.add(digest)
        try:
            chunks = self._counted(host, digest, size, offset, download=download, came=came)
            offset = parts.blobs.append(digest, chunks, offset=offset, limit=size)
        finally:
            download.flowing.discard(digest)
        return offset

    def _counted(
        self, host: str, digest: str, size: int, offset: int, *, download: Download, came: _Came
    ) -> Iterator[bytes]:
        """Yield what a neighbour gives, to the end or until it fails: then there is another source."""
        sharing = self._parts.sharing
        try:
            with sharing.open(host, digest, offset=offset, size=size) as chunks:
                for chunk in chunks:
                    sharing.gave(host, digest)
                    came.size += len(chunk)
                    download.meter.note(len(chunk), near=True)
                    yield chunk
                    if download.stop.is_set() or self._outranked(download):
                        return
        except SkerryError as error:
            if not error.code.startswith("near."):
                raise
            sharing.failed(host, digest, error, came=came.size)

    def check(self, download: Download) -> None:
        """Return when a download may go on now, so that nobody asks for what may not be fetched; else `HeldBack`."""
        if self._outranked(download):
            raise HeldBack(Held(1.0, "waiting for a more urgent download"))
        granted = self._parts.limiter.ask(1)
        if isinstance(granted, Held):
            raise HeldBack(granted)
        self._parts.limiter.give_back(granted.size)

    def _fetch_part(self, digest: str, offset: int, size: int, download: Download) -> int:
        """Fetch as much as may flow now and return the new offset."""
        parts = self._parts
        token = parts.token()
        if not token:
            raise Unavailable("fetch.waiting", "waiting for the upstream's leave to fetch")
        if self._outranked(download):
            raise HeldBack(Held(1.0, "waiting for a more urgent download"))
        granted = parts.limiter.ask(size - offset)
        if isinstance(granted, Held):
            raise HeldBack(granted)
        wanted, came = offset + granted.size, _Came()
        limit = None if wanted == size else granted.size
        began = parts.clock.monotonic()
        download.flowing.add(digest)
        try:
            opened = parts.link.blob(digest, offset=offset, token=token, limit=limit, rate=granted.rate)
            with opened as chunks:
                opened_at = parts.clock.monotonic()
                offset = parts.blobs.append(
                    digest, self._paced(chunks, download, came), offset=offset, limit=size
                )
            self._learn(opened_at - began, came.size, parts.clock.monotonic() - opened_at)
        finally:
            download.flowing.discard(digest)
            parts.limiter.give_back(max(0, granted.size - came.size))
        if offset < wanted and not came.size:
            # It answered and had nothing: another attempt would have nothing either.
            raise Untrusted("blob.too_short", f"blob {short(digest)} ends at {offset} of {size} bytes")
        if offset < wanted and not came.paused:
            raise Unavailable("link.cut", f"blob {short(digest)} was cut off at {offset} of {size} bytes")
        return offset

    def _paced(self, chunks: Iterator[bytes], download: Download, came: _Came) -> Iterator[bytes]:
        """Yield chunks no faster than the budget allows; end early rather than hold a connection for long."""
        parts = self._parts
        for chunk in chunks:
            came.size += len(chunk)
            download.meter.note(len(chunk))
            wait_s = parts.limiter.take(len(chunk))
            yield chunk
            came.paused = wait_s > LONGEST_PAUSE_S or self._outranked(download)
            if came.paused or (wait_s and parts.pause(download.stop, wait_s)) or download.stop.is_set():
                return

    def _learn(self, latency_s: float, size: int, took_s: float) -> None:
        self.latency_s += _LATEST * (latency_s - self.latency_s)
        if size >= _SPEED_BYTES and took_s > 0:
            seen = size / took_s
            self.speed = seen if self.speed is None else self.speed + _LATEST * (seen - self.speed)


class _Came(msgspec.Struct):
    """What came of a grant, and whether we ended it ourselves."""

    size: int = 0
    paused: bool = False
