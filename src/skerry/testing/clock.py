"""SimulatedClock: time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from datetime import UTC, datetime, timedelta

from skerry.ports.clock import Clock
from skerry.testing.counted_threads import count_threads, threads_rest

_rounds = 50


class SimulatedClock(Clock):
    """A clock for one event loop. The wall clock and the monotonic one move together, except in a `jump`."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        with contextlib.suppress(RuntimeError):  # no event loop: no threads of one either
            count_threads()
        self._elapsed_s = 0.0
        self._jumped = timedelta()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        return self._start + self._jumped + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._numbers), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many tasks sleep."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def jump(self, delta: timedelta) -> None:
        """Set the wall clock forward or back, as a person or NTP does; nobody wakes."""
        self._jumped += delta

    def advance(self, seconds: float) -> None:
        """Let time pass at once and wake all who slept until then; they run when the loop next does."""
        self._pass_until(self._elapsed_s + seconds)

    async def elapse(self, seconds: float) -> None:
        """Let time pass from sleeper to sleeper, so that a loop that sleeps again wakes again in time."""
        end_s = self._elapsed_s + seconds
        await settle()
        while (next_s := self._next_deadline()) is not None and next_s <= end_s:
            self._pass_until(next_s)
            await settle()
        self._pass_until(end_s)
        await settle()

    def _next_deadline(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def _pass_until(self, end_s: float) -> None:
        if end_s < self._elapsed_s:
            raise ValueError("monotonic time never goes back")
        while (next_s := self._next_deadline()) is not None and next_s <= end_s:
            heapq.heappop(self._sleepers)[2].set_result(None)
        self._elapsed_s = end_s


async def settle() -> None:
    """Let all tasks of the loop run until they wait for something other than threads."""
    count_threads()
    rested = False
    while not rested:
        for _ in range(_rounds):
            await asyncio.sleep(0)
        rested = await threads_rest()
