"""The sink loop: a task for each sink, so that none waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from skerry.hub.sinking import MakeTarget, Sinking
from skerry.kit.errors import Bug, SkerryError, as_failure
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore

_log = structlog.get_logger()

LOOK_EVERY_S = 30.0
"""How long it takes at most until it is seen what another replica changed, or let go of."""
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0
AT_ONCE = 2
"""How many sinks read messages from the store at a time; that needs memory."""

News = Callable[[float], Awaitable[bool]]
"""Return True when messages came, False when so many seconds went by."""


class SinkLoop:
    """Serves all sinks. `holder` is the name of this replica, which nobody else has."""

    def __init__(self, store: HubStore, clock: Clock, holder: str, *, make: MakeTarget, news: News) -> None:
        self._store = store
        self._clock = clock
        self._holder = holder
        self._make = make
        self._news = news
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, tuple[bytes, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at once: sinks were changed."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Serve sinks, for ever."""
        try:
            while True:
                self._wake.clear()
                try:
                    records = await asyncio.to_thread(self._store.sinks)
                except SkerryError as error:
                    _log.error("sinks.not_read", code=error.code, reason=str(error))
                else:
                    await self._follow({record.name: record.document for record in records})
                await self._either(self._wake.wait(), self._clock.sleep(LOOK_EVERY_S))
        finally:
            await self._follow({})

    async def _follow(self, documents: Mapping[str, bytes]) -> None:
        """Begin what is new or was changed, at once and not when its last wait is over; end what is gone."""
        over = [name for name, (document, _) in self._tasks.items() if documents.get(name) != document]
        gone = [self._tasks.pop(name)[1] for name in over]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        for name in documents.keys() - self._tasks.keys():
            self._tasks[name] = documents[name], asyncio.create_task(self._serve(name))

    async def _serve(self, name: str) -> None:
        sinking = Sinking(
            name, self._store, self._clock, holder=self._holder, make=self._make, room=self._room
        )
        failures = 0
        try:
            while True:
                # Waiting begins before the look, so that what comes in between is not missed.
                news = asyncio.ensure_future(self._news(LOOK_EVERY_S))
                try:
                    more = await sinking.turn()
                    failures = 0
                    if not more:
                        await self._either(news, self._clock.sleep(LOOK_EVERY_S))
                        if news.done() and not news.result():  # at once when the hub stops
                            await self._clock.sleep(1.0)
                except Exception as caught:
                    failures += 1
                    await self._fail(sinking, name, caught)
                    await self._clock.sleep(wait_s(failures))
                finally:
                    news.cancel()
        finally:
            await sinking.close()

    async def _fail(self, sinking: Sinking, name: str, caught: Exception) -> None:
        error = as_failure(caught)
        cause = error.__cause__ if isinstance(error, Bug) else None
        _log.warning("sink.failing", sink=name, code=error.code, reason=str(error), exc_info=cause)
        with contextlib.suppress(SkerryError):
            await sinking.note_trouble(str(error))

    @staticmethod
    async def _either(*waits: Awaitable[object]) -> None:
        tasks = [asyncio.ensure_future(one) for one in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


def wait_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: about 2, 4, 8 ... 300 s, half of it at random."""
    most = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 16))
    return most * random.uniform(0.5, 1)  # noqa: S311 (spreads load, guards nothing)
