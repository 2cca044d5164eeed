"""Threads whose work can be waited for, so that a test that lets tasks settle depends on no machine's speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any
from weakref import WeakKeyDictionary

BLOCKED_AFTER_S = 2.0
"""What is at work for so long is held up on purpose, as a test may, and is waited for no longer."""
_LOOK_S = 0.001


class _Work:
    """What threads do for one event loop."""

    def __init__(self) -> None:
        self.since: dict[asyncio.Future[Any], float] = {}
        self.has_ended = False

    def begin(self, future: asyncio.Future[Any]) -> None:
        self.since[future] = time.monotonic()
        future.add_done_callback(self._end)

    def _end(self, future: asyncio.Future[Any]) -> None:
        self.has_ended = True
        del self.since[future]


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Work] = WeakKeyDictionary()


def count_threads() -> None:
    """From now on count what this event loop lets threads do."""
    loop = asyncio.get_running_loop()
    if loop in _of_loop:
        return
    work = _of_loop[loop] = _Work()
    run = loop.run_in_executor

    def run_counted(
        executor: Executor | None, call: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        future = run(executor, call, *arguments)
        work.begin(future)
        return future

    loop.run_in_executor = run_counted  # type: ignore[method-assign, assignment]


async def threads_rest() -> bool:
    """Tell whether no thread is at work, and none was since the last call; look once, and let time pass if one is."""
    work = _of_loop[asyncio.get_running_loop()]
    latest = time.monotonic() - BLOCKED_AFTER_S
    if any(since > latest for since in work.since.values()):
        await asyncio.sleep(_LOOK_S)
        return False
    ended, work.has_ended = work.has_ended, False
    return not ended
