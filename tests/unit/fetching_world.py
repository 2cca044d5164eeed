"""A fetcher with a scripted upstream that knows of deltas, and a clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from skerry.agent.fetcher import Fetcher, FetchParts, Priority
from skerry.agent.fetching_progress import Fetched
from skerry.agent.finding_ways import Bases
from skerry.carrier.limiting import Limiter
from skerry.delivery.relatives import Base
from skerry.kit.digests import digest_of
from skerry.ports.blobs import LocalBlobs
from skerry.spec.carrier import DeltaAnswer, DeltaAvailable, DeltaComing
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.waiting import eventually
from tests.unit.delta_files_of import delta_of, noise
from tests.unit.upstream import NOW, BlobLink

OLD = noise(60_000, 1)
NEW = OLD[:30_000] + noise(5000, 2) + OLD[30_000:]
DELTA = delta_of(OLD, NEW)
PACKED = delta_of(b"", NEW)
BASE: Base = (digest_of(OLD),)
RELEASE = "release"


def offer(
    delta: bytes = DELTA,
    *,
    new: bytes = NEW,
    base: Base = BASE,
    digest: str = "",
    size_bytes: int | None = None,
) -> DeltaAvailable:
    """Return what the upstream says of a delta that is there; with its own digest and size unless they are stated."""
    return DeltaAvailable(
        target=digest_of(new),
        base=base,
        delta=digest or digest_of(delta),
        size_bytes=len(delta) if size_bytes is None else size_bytes,
    )


def offers(*available: DeltaAvailable) -> DeltaAnswer:
    """Return an answer with deltas that are there."""
    return DeltaAnswer(available=available)


def soon(left_s: float = 5.0, *, new: bytes = NEW, base: Base = BASE) -> DeltaAnswer:
    """Return an answer with a delta that is being made."""
    return DeltaAnswer(coming=(DeltaComing(target=digest_of(new), base=base, left_s=left_s),))


class DistantLink(BlobLink):
    """Takes its time by a clock: so many seconds to answer, and so many bytes a second."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(contents)
        self.clock = SimulatedClock(NOW)
        self.latency_s = 0.0
        self.rate = 0.0
        self.gate: threading.Barrier | None = None
        self.open = 0
        self.most_open = 0
        self._turn = threading.Lock()

    @contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        """Serve a blob; with a gate, only when so many are open at a time."""
        with self._turn:
            self.clock.advance(self.latency_s)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            if self.gate is not None:
                self.gate.wait(20)
            with super().blob(digest, offset=offset, token=token, limit=limit, rate=rate) as chunks:
                yield self._slowly(chunks)
        finally:
            with self._turn:
                self.open -= 1

    def _slowly(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self.rate:
                with self._turn:
                    self.clock.advance(len(chunk) / self.rate)
            yield chunk


class FetchingHost:
    """A host that fetches blobs for its release."""

    def __init__(self, root: Path, link: DistantLink, blobs: LocalBlobs) -> None:
        self.link = link
        self.blobs = blobs
        self.clock = link.clock
        self.tokens = ["good"]
        self.changes = 0
        self.fetched: list[Fetched] = []
        self.limiter = Limiter(MemoryAgentStore(), self.clock, self.clock.now)
        self.fetcher = Fetcher(
            FetchParts(blobs, link, self.clock, token=self._token, root=root, limiter=self.limiter)
        )
        self.fetcher.on_change = self._note_change
        self.fetcher.on_fetched = lambda _, what: self.fetched.append(what)

    def _token(self, *, renew: bool = False) -> str:
        if renew:
            self.tokens = self.tokens[1:] or self.tokens
        return self.tokens[0]

    def _note_change(self) -> None:
        self.changes += 1

    @property
    def trouble(self) -> str:
        """What hinders the release."""
        return self.fetcher.troubles.get(RELEASE, "")

    def want(
        self,
        *contents: bytes,
        bases: Mapping[bytes, tuple[Base, ...]] | None = None,
        priority: Priority = Priority.RELEASE,
        release: str = RELEASE,
    ) -> None:
        """Ask for contents, without or with what deltas to them may be made from, as the reconcile loop does."""
        known: Bases = {str(digest_of(content)): options for content, options in (bases or {}).items()}
        blobs = [(digest_of(content), len(content)) for content in contents]
        self.fetcher.want(release, blobs, priority=priority, bases=lambda: known)

    async def attempt(
        self, *contents: bytes, bases: Mapping[bytes, tuple[Base, ...]] | None = None, release: str = RELEASE
    ) -> str:
        """Ask once, after a while, and return what hinders it, which may be that it waits for a delta."""
        self.clock.advance(61)
        before = self.changes
        self.want(*contents, bases=bases, release=release)
        await self.until(lambda: self.changes > before)
        return self.fetcher.troubles.get(release, "")

    async def attempt_new(self) -> str:
        """Ask for NEW, which may come from OLD or compressed."""
        return await self.attempt(NEW, bases={NEW: (BASE, ())})

    async def go_on(self, seconds: float) -> str:
        """Let time pass for who waits, and return what hinders it then."""
        await self.until(lambda: self.clock.sleepers > 0)
        before = self.changes
        self.clock.advance(seconds)
        await self.until(lambda: self.changes > before)
        return self.trouble

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come true."""

        async def look() -> bool:
            return condition()

        await eventually(look)

    def content(self, of: bytes) -> bytes | None:
        """Return what is here under the digest of a content."""
        path = self.blobs.path(digest_of(of))
        return path.read_bytes() if self.blobs.has(digest_of(of)) else None


@asynccontextmanager
async def fetching_host(
    root: Path, blobs: LocalBlobs, *held: bytes, served: tuple[bytes, ...] = (NEW, DELTA)
) -> AsyncGenerator[FetchingHost]:
    """Give a host that holds contents, and an upstream that serves others."""
    for content in held:
        blobs.put(digest_of(content), content)
    host = FetchingHost(root, DistantLink({digest_of(content): content for content in served}), blobs)
    try:
        yield host
    finally:
        await host.fetcher.close()
        await asyncio.sleep(0)
