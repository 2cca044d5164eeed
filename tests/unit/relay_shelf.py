"""A relay's cache over real files, and an upstream that gives what a test says, when it says so."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.carrier.limiting import Limiter
from skerry.kit.digests import digest_of
from skerry.kit.errors import Denied, Missing, Unavailable
from skerry.ports.blobs import LocalBlobs
from skerry.ports.link import Link
from skerry.relay.arrivals import Source
from skerry.relay.cache import BlobCache
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_relay import MemoryRelayStore

CHUNK = 10_000


class Depot(Link):
    """An upstream with blobs. A gate lets as many chunks pass as a test says; `cuts` end the next answers early."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.opened: list[tuple[str, int]] = []
        self.asked: list[str] = []
        self.cuts: list[int] = []
        self.away = False
        self.sent = 0
        self.gate: threading.Semaphore | None = None

    def _never(self, *_: object, **__: object) -> Any:
        raise AssertionError

    enroll = change_keys = sync = enroll_relay = carry = deltas = metadata = close = _never

    def blob_size(self, digest: str, *, token: str) -> int | None:
        self.asked.append(digest)
        if self.away:
            raise Unavailable("link.unreachable", "away")
        content = self.contents.get(digest)
        return None if content is None else len(content)

    @contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        if self.away:
            raise Unavailable("link.unreachable", "away")
        if token != "good":
            raise Denied("blob_token.invalid", "no")
        if digest not in self.contents:
            raise Missing("blob.missing", "none of that")
        self.opened.append((digest, offset))
        content = self.contents[digest][offset:]
        yield self._chunks(content if limit is None else content[:limit])

    def _chunks(self, content: bytes) -> Iterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else None
        for start in range(0, len(content), CHUNK):
            if self.gate is not None:
                self.gate.acquire()
            if cut is not None and start >= cut:
                raise Unavailable("link.cut", "cut")
            self.sent += len(content[start : start + CHUNK])
            yield content[start : start + CHUNK]


class Shelf:
    """A cache over real files, and what it fetches from."""

    def __init__(self, folder: Path, *, limit_bytes: int = 1 << 30) -> None:
        self.folder = folder
        self.clock = SimulatedClock()
        self.depot = Depot({})
        self.limiter = Limiter(MemoryRelayStore(), self.clock, self.clock.now)
        self.limit_bytes = limit_bytes
        self.blobs: LocalBlobs = DirectoryBlobs(folder)
        self.token = "good"
        self.pause: Callable[[threading.Event, float], object] = lambda stop, _: stop.is_set()
        self.begin()

    def begin(self) -> None:
        source = Source(self.depot, lambda: self.token, self.limiter, pause=self.pause)
        self.cache = BlobCache(self.blobs, source, self.clock, limit_bytes=self.limit_bytes)
        self.cache.load()

    async def restart(self) -> None:
        await self.cache.close()
        self.begin()

    def watch(self, verified: list[str]) -> None:
        """Begin anew over blobs that tell which of them are verified."""

        class Watched(DirectoryBlobs):
            def verify(self, digest: str) -> bool:
                verified.append(digest)
                return super().verify(digest)

        self.blobs = Watched(self.folder)
        self.begin()

    def stock(self, size: int, seed: int = 1) -> str:
        """Put a blob into the depot."""
        content = random.Random(seed).randbytes(size)
        self.depot.contents[digest_of(content)] = content
        return digest_of(content)

    async def read(self, digest: str, start: int = 0, end: int | None = None) -> bytes:
        return b"".join([chunk async for chunk in self.cache.read(digest, start=start, end=end)])

    async def fill(self, *sizes: int) -> list[str]:
        """Bring blobs of these sizes into the cache, one after the other, some time apart."""
        digests = [self.stock(size, seed=number) for number, size in enumerate(sizes, 10)]
        for digest in digests:
            self.clock.advance(100.0)
            await self.read(digest)
        return digests

    def want(self, *digests: str) -> None:
        self.cache.want({digest: len(self.depot.contents[digest]) for digest in digests})


async def is_now(value: bool) -> bool:
    """Return a value, for who waits for it."""
    return value
