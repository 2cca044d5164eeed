"""Brings blobs: resumes at the byte, verifies before use, waits longer after each failure.

One download runs at a time; the newest wish counts. What hinders it is told in `troubles`, by release digest.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from skerry.agent.retrying import Retry
from skerry.kit.digests import short
from skerry.kit.errors import Denied, SkerryError, Unavailable, Untrusted
from skerry.kit.quantities import format_size
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.link import Link

_log = structlog.get_logger()

SPARE_BYTES = 32 << 20


class Fetcher:
    """Fetches what releases need, in the background."""

    def __init__(
        self, blobs: LocalBlobs, link: Link, clock: Clock, *, token: Callable[..., str], root: Path
    ) -> None:
        self._blobs = blobs
        self._link = link
        self._clock = clock
        self._token = token
        self._root = root
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._retries: dict[str, Retry] = {}
        self.troubles: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None

    def want(self, release: str, blobs: Sequence[tuple[str, int]]) -> None:
        """See to it that these blobs (digest, size) of a release come; again is harmless."""
        task = self._tasks.get(release)
        if (task is not None and not task.done()) or self._not_before.get(
            release, 0.0
        ) > self._clock.monotonic():
            return
        self._tasks[release] = asyncio.create_task(self._fetch(release, tuple(blobs)))

    def forget(self, keep: set[str]) -> None:
        """Stop fetching for releases that are wanted no more."""
        for release in [release for release in self._tasks if release not in keep]:
            self._tasks.pop(release).cancel()
            self._retries.pop(release, None)
            self._not_before.pop(release, None)
            self.troubles.pop(release, None)

    async def close(self) -> None:
        """Stop everything; what has arrived stays."""
        tasks = list(self._tasks.values())
        self.forget(set())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, release: str, blobs: Sequence[tuple[str, int]]) -> None:
        try:
            for digest, size in blobs:
                if not self._blobs.has(digest):
                    await asyncio.to_thread(self._fetch_one, digest, size)
        except SkerryError as error:
            self._fail(release, error)
        except OSError as error:
            # A disk that fails otherwise than by being full; without a pause we would spin.
            self._fail(release, Unavailable("disk.failed", f"the disk fails: {error.strerror or error}"))
        else:
            self._retries.pop(release, None)
            self.troubles.pop(release, None)
        finally:
            self.on_change()

    def _fail(self, release: str, error: SkerryError) -> None:
        if isinstance(error, Denied):
            self._token(renew=True)
        wait_s = self._retries.setdefault(release, Retry()).next_wait_s()
        self._not_before[release] = self._clock.monotonic() + wait_s
        if self.troubles.get(release) != error.message:
            _log.warning("fetch.failed", release=short(release), code=error.code, reason=error.message)
        self.troubles[release] = error.message

    def _fetch_one(self, digest: str, size: int) -> None:
        """Fetch one blob; blocking, in a thread."""
        if size == 0:
            self._blobs.put(digest, b"")
            return
        token = self._token()
        if not token:
            raise Unavailable("fetch.waiting", "waiting for the upstream's leave to fetch")
        offset = self._blobs.partial_size(digest)
        if offset < size:
            self._check_room(size - offset)
            with self._link.blob(digest, offset=offset, token=token) as chunks:
                offset = self._blobs.append(digest, chunks, offset=offset, limit=size)
        if offset < size:
            raise Unavailable("link.cut", f"blob {short(digest)} was cut off at {offset} of {size} bytes")
        try:
            self._blobs.finish(digest)
        except Untrusted:
            _log.error("blob.mismatch", digest=digest)
            raise

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._root).free
        if free < needed + SPARE_BYTES:
            message = f"disk full: {format_size(needed)} to fetch, {format_size(free)} free"
            raise Unavailable("disk.full", message)
