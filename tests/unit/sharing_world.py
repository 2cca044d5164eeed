"""Hosts of a site that share: real `Sharing` and `Shelf`, doors in memory, one clock, and an upstream for each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from skerry.agent.fetcher import Fetcher, FetchParts
from skerry.agent.sharing import SETTLE_S, Sharing, SharingParts
from skerry.agent.sharing_serving import Passes, Shelf
from skerry.carrier.limiting import Limiter
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.ports.sharing import NearPlace
from skerry.spec.desired import Neighbour
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore, MemoryLocalBlobs
from skerry.testing.memory_sharing import MemoryDoor, MemoryDoors, MemoryNear
from skerry.testing.waiting import eventually
from skerry.trust.keys import SigningKey
from tests.unit.upstream import NOW, BlobLink

NAMES = ("edge-1", "edge-2", "edge-3")
KEYS = {name: SigningKey.generate() for name in NAMES}
SITE = "harbour"


def _good(*, renew: bool = False) -> str:
    return "good"


class GatedLink(BlobLink):
    """Where there is a gate, each chunk of 1000 bytes waits for leave to come."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(contents)
        self.gate: threading.Semaphore | None = None

    def _chunks(self, content: bytes, cut_after: int | None) -> Iterator[bytes]:
        for chunk in super()._chunks(content, cut_after):
            if self.gate is not None and not self.gate.acquire(timeout=20):
                raise Unavailable("link.cut", "the test gave no leave")
            yield chunk


class SharingHost:
    """One host."""

    def __init__(self, name: str, root: Path, site: SharingHosts) -> None:
        self.name = name
        self.blobs = MemoryLocalBlobs(root / name)
        self.link = GatedLink(site.contents)
        self.clock = site.clock
        self.passes = Passes(name, SITE, KEYS[name], site.clock.now)
        near = MemoryNear(site.doors, name)
        self.sharing = Sharing(name, SharingParts(near, self.blobs, site.clock, self.passes.own))
        self.shelf = Shelf(self.sharing, self.passes, self.blobs, site.clock, pause=site.pause)
        self.door = MemoryDoor(site.doors)
        self.limiter = Limiter(MemoryAgentStore(), site.clock, site.clock.now)
        self.fetcher = Fetcher(
            FetchParts(
                self.blobs,
                self.link,
                site.clock,
                _good,
                root,
                self.limiter,
                sharing=self.sharing,
            )
        )
        self.changes = 0
        self.fetcher.on_change = self._note

    def _note(self) -> None:
        self.changes += 1

    def has(self, *contents: bytes) -> bool:
        return all(self.blobs.has(digest_of(content)) for content in contents)

    def want(self, *contents: bytes) -> None:
        self.fetcher.want("release", [(digest_of(content), len(content)) for content in contents])

    @property
    def trouble(self) -> str:
        return self.fetcher.troubles.get("release", "")


class SharingHosts:
    """The hosts of a site, which hear each other."""

    def __init__(self, root: Path, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.clock = SimulatedClock(NOW)
        self.doors = MemoryDoors()
        self.hosts = {name: SharingHost(name, root, self) for name in NAMES}
        self.alive: set[str] = set(NAMES)
        self.real_ways = False
        self.time_flies = False
        neighbours = {name: Neighbour(sign_key=KEYS[name].public) for name in NAMES}
        for name, host in self.hosts.items():
            host.passes.follow(neighbours)
            host.door.open(name, 1, host.shelf)
        self.introduce()
        self.clock.advance(SETTLE_S)

    def pause(self, seconds: float) -> None:
        """Let a reader wait: time passes, or in real ways only a moment of the test's own."""
        if self.real_ways:
            threading.Event().wait(0.001)
        else:
            self.clock.advance(seconds)

    def introduce(self) -> None:
        """Let everybody alive hear each other."""
        for name, host in self.hosts.items():
            others = {other: NearPlace(f"{other}:1", "0" * 64) for other in self.alive - {name}}
            host.sharing.follow(others, named=set(others))

    def kill(self, name: str) -> None:
        """Take a host away; the others still believe that it is there."""
        self.hosts[name].door.close()

    def __getitem__(self, number: int) -> SharingHost:
        return self.hosts[NAMES[number]]

    def above_bytes(self) -> int:
        """Return what came from above to all."""
        return sum(host.link.sent_bytes for host in self.hosts.values())

    async def until(self, condition: Callable[[], bool], *contents: bytes, step_s: float = 0.25) -> float:
        """Let time pass until a condition holds, while all who lack contents ask for them; return how long it took."""
        began = self.clock.monotonic()

        async def look() -> bool:
            if condition():
                return True
            for host in self.hosts.values():
                if contents and host.name in self.alive and not host.has(*contents):
                    host.want(*contents)
            await asyncio.sleep(0.002)  # for the threads of the downloads
            # While one of them works no time passes: how long a thing takes does not depend on this machine.
            busy = sum(len(host.fetcher._downloads) for host in self.hosts.values())
            if self.time_flies or self.clock.sleepers >= busy:
                self.clock.advance(step_s)
            return False

        await eventually(look)
        return self.clock.monotonic() - began

    async def until_all_have(self, *contents: bytes) -> float:
        """Let everybody fetch contents and return how long it took."""
        return await self.until(
            lambda: all(self.hosts[name].has(*contents) for name in self.alive), *contents
        )


@asynccontextmanager
async def sharing_hosts(root: Path, *contents: bytes) -> AsyncGenerator[SharingHosts]:
    """Give a site whose hosts share, and whose upstreams have these contents."""
    site = SharingHosts(root, {digest_of(content): content for content in contents})
    try:
        yield site
    finally:
        for host in site.hosts.values():
            await host.fetcher.close()
        await asyncio.sleep(0)
