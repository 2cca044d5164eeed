"""A hub's shelf of deltas with a maker that does as a test says, over a real store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from skerry.adapters.sql.store import SqlHubStore
from skerry.delivery.relatives import Base
from skerry.hub.deltas import DeltaLimits, DeltaShelf, Pair
from skerry.kit.digests import digest_of
from skerry.ports.blobs import Blobs
from skerry.ports.delta_maker import DeltaMaker, MadeDelta
from skerry.ports.hub_store import HubStore
from skerry.spec.carrier import DeltaAnswer, DeltaQuestion, DeltaRequest
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryBlobs
from skerry.testing.waiting import eventually

TARGET_BYTES = 10_000
DELTA_BYTES = 1000


def target(number: int) -> bytes:
    """Return a content that differs from all others."""
    return f"target {number:<20}".encode().ljust(TARGET_BYTES, b".")


def name(number: int) -> str:
    """Return the digest of a content."""
    return digest_of(target(number))


def pair(base: int | None, to: int) -> Pair:
    """Return the pair of two contents, or of nothing and a content."""
    return (() if base is None else (name(base),)), name(to)


def question(to: int, *bases: Base) -> DeltaQuestion:
    """Ask for a content from bases."""
    return DeltaQuestion(target=name(to), bases=bases)


def coming(answer: DeltaAnswer) -> list[Pair]:
    """Return the pairs that are said to come."""
    return [(one.base, one.target) for one in answer.coming]


def available(answer: DeltaAnswer) -> list[Pair]:
    """Return the pairs that are said to be there."""
    return [(one.base, one.target) for one in answer.available]


class ScriptedMaker(DeltaMaker):
    """Makes content of a stated size when it is let; `gated` makes it wait for `let`."""

    def __init__(self, folder: Path, *, gated: bool = False) -> None:
        self._folder = folder
        self._turns = asyncio.Semaphore(0)
        self.gated = gated
        self.begun: list[Pair] = []
        self.made: list[MadeDelta] = []
        self.size_bytes = DELTA_BYTES
        self.sizes: dict[Pair, int] = {}
        self.errors: dict[Pair, Exception] = {}

    def let(self, count: int = 1) -> None:
        """Let so many be finished."""
        for _ in range(count):
            self._turns.release()

    async def make(self, base: Sequence[str], target: str) -> MadeDelta:
        """Make what the test says."""
        wanted = tuple(base), target
        self.begun.append(wanted)
        file = self._folder / f"{len(self.begun)}.delta"
        if self.gated:
            await self._turns.acquire()
        if wanted in self.errors:
            raise self.errors[wanted]
        content = repr(wanted).encode().ljust(self.sizes.get(wanted, self.size_bytes), b".")
        file.write_bytes(content)
        made = MadeDelta(file, digest_of(content), len(content))
        self.made.append(made)
        return made


class World:
    """A shelf and what it works with; `restart` makes another shelf of the same store and blobs."""

    def __init__(self, folder: Path, *, gated: bool = False, contents: int = 10) -> None:
        self.store: HubStore = SqlHubStore.open(None)
        self.sources = MemoryBlobs()
        self.deltas: Blobs = MemoryBlobs()
        self.clock = SimulatedClock()
        self.folder = folder
        self.maker = ScriptedMaker(folder, gated=gated)
        self.limits = DeltaLimits()
        self.contents = contents
        self.shelf = self.restart()

    def restart(self) -> DeltaShelf:
        """Return the shelf of the next process."""
        self.shelf = DeltaShelf(self.store, self.sources, self.deltas, self.maker, self.clock)
        self.shelf.limits = self.limits
        return self.shelf

    async def fill(self) -> None:
        """Put the contents where deltas are made between them."""
        for number in range(self.contents):
            await self.sources.put(name(number), target(number))

    async def ask(self, *questions: DeltaQuestion, host: str = "edge") -> DeltaAnswer:
        """Ask as a host does."""
        return await self.shelf.answer(host, DeltaRequest(wanted=questions))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Make what is queued, until the block ends."""
        task = asyncio.create_task(self.shelf.run_forever())
        try:
            yield
            assert not task.done(), "it goes on whatever happens"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come true."""

        async def look() -> bool:
            return condition()

        await eventually(look)

    async def until_known(self, pairs: Iterable[Pair]) -> None:
        """Wait until pairs are made, or known not to be worth it; asks for nothing."""
        wanted = list(pairs)

        async def look() -> bool:
            sizes = await self.shelf.sizes(wanted)
            return all(sizes.get(one) is not None for one in wanted)

        await eventually(look)

    async def kept(self) -> set[str]:
        """Return the deltas that take room."""
        return {made.digest for made in self.maker.made if await self.deltas.size(made.digest) is not None}

    def recorded(self) -> dict[Pair, str]:
        """Return what the store has, by pair."""
        return {
            (tuple(record.base.split("+")) if record.base else (), record.target): record.delta
            for record in self.store.deltas()
        }


@asynccontextmanager
async def world(folder: Path, *, gated: bool = False, contents: int = 10) -> AsyncGenerator[World]:
    """Give a world with its contents in place."""
    made = World(folder, gated=gated, contents=contents)
    await made.fill()
    yield made
    made.store.close()
