"""The whole blobs on a relay's disk: which of them are known to be good, and which matters least.

Rules: a blob is handed out if its file is the one that was verified in this run: the same inode, size and time of
change. Any other is read and verified first. Each is verified again a day later, whether or not anybody asks: what a
disk forgets by itself changes no time. A damaged one is removed, so that it is fetched again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterable
from concurrent.futures import Executor
from functools import partial

import msgspec
import structlog

from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.relay.once import Once

_log = structlog.get_logger()

NOTE_USE_EVERY_S = 60.0
VERIFY_AGAIN_S = 86_400.0
LOOK_EVERY_S = 60.0
PAUSE_S = 0.05
PAUSE_TIMES = 10
"""After verifying a blob, so many times the time it took: verifying takes a tenth of a disk."""


class FileState(msgspec.Struct, frozen=True):
    """Which file it is, and that nobody has written to it since."""

    inode: int
    size: int
    changed_ns: int


class Entry(msgspec.Struct):
    """A whole blob: when it was last used, in seconds since 1970.

    `verified` is the file that was found good in this run, at `verified_at` on the monotonic clock.
    """

    size: int
    used_at: float
    verified: FileState | None = None
    verified_at: float = 0.0
    readers: int = 0


class KeptBlobs:
    """Whole blobs by digest. Lives in one event loop; files are read in `reading`."""

    def __init__(self, blobs: LocalBlobs, clock: Clock, reading: Executor) -> None:
        self._blobs = blobs
        self._clock = clock
        self._reading = reading
        self._verifying = Once[str, bool]()
        self.entries: dict[str, Entry] = {}
        self.damaged = 0

    def load(self) -> None:
        """Take note of the blobs that are on disk. Blocking."""
        for digest in self._blobs.digests():
            with contextlib.suppress(OSError):
                found = self._blobs.path(digest).stat()
                self.entries[digest] = Entry(found.st_size, found.st_mtime)

    def add(self, digest: str) -> Entry:
        """Take note of a blob that was verified a moment ago, and used."""
        entry = self.entries.get(digest)
        if entry is None:
            found = self._file(digest)
            size = found.size if found is not None else 0
            entry = self.entries[digest] = Entry(size, 0.0, found, self._clock.monotonic())
        self.note_use(digest, entry)
        return entry

    def note_use(self, digest: str, entry: Entry) -> None:
        """Note that a blob is used now."""
        now = self._clock.now().timestamp()
        if now - entry.used_at > NOTE_USE_EVERY_S:
            # Kept as the file's own time, so that it is known after a restart.
            good = entry.verified is not None and entry.verified == self._file(digest)
            with contextlib.suppress(OSError):
                os.utime(self._blobs.path(digest), (now, now))
            entry.verified = self._file(digest) if good else None
        entry.used_at = now

    async def is_sound(self, digest: str) -> bool:
        """Tell whether a whole blob is here: the file that was verified in this run, or one that is verified now."""
        entry = self.entries.get(digest)
        if entry is None:
            return False
        if entry.verified is not None and entry.verified == self._file(digest):
            return True
        return await self._verifying.once(digest, partial(self._verify, digest, entry))

    async def verify_forever(self) -> None:
        """Read and verify what was on disk at the start, and each blob again a day after it was verified."""
        while True:
            for digest, entry in list(self.entries.items()):
                began = self._clock.monotonic()
                if entry.verified is not None and began - entry.verified_at < VERIFY_AGAIN_S:
                    continue
                await self._verifying.once(digest, partial(self._verify, digest, entry))
                await self._clock.sleep(PAUSE_S + PAUSE_TIMES * (self._clock.monotonic() - began))
            await self._clock.sleep(LOOK_EVERY_S)

    def let_go_one(self, wanted: Iterable[str], coming: Collection[str]) -> int:
        """Let go of the blob that matters least, and return its size; 0 when none may go.

        `wanted` ones, of which the first matters most, go last; of others the one that was not used for longest goes.
        """
        ranks = {digest: number for number, digest in enumerate(wanted)}
        idle = [
            (ranks.get(digest) is not None, -ranks.get(digest, 0), entry.used_at, digest)
            for digest, entry in self.entries.items()
            if not entry.readers and digest not in coming
        ]
        if not idle:
            return 0
        digest = min(idle)[3]
        entry = self.entries.pop(digest)
        try:
            self._blobs.remove(digest)
        except OSError:
            _log.warning("blob.not_removed", digest=digest)
        return max(1, entry.size)

    async def close(self) -> None:
        """End what is being verified."""
        await self._verifying.close()

    async def _verify(self, digest: str, entry: Entry) -> bool:
        # Looked at before it is read: a file that changes meanwhile is read once more.
        file = self._file(digest)
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._reading, self._blobs.verify, digest):
            entry.verified, entry.verified_at = file, self._clock.monotonic()
            return True
        if self.entries.get(digest) is entry:
            self.damaged += 1
            del self.entries[digest]
            _log.error("blob.damaged", digest=digest)
        return False

    def _file(self, digest: str) -> FileState | None:
        try:
            found = self._blobs.path(digest).stat()
        except OSError:
            return None
        return FileState(found.st_ino, found.st_size, found.st_ctime_ns)
