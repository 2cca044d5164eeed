"""Chores: work that takes a while, one piece for each key at a time, tried again with growing pauses.

The reconcile loop asks for the same chore at every step until it sees that it is done; asking is free. What
hinders a chore is told in `troubles`, by key; what can never be done, in `refused`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet

import structlog

from skerry.agent.retrying import Retry
from skerry.kit.errors import Rejected, SkerryError, as_failure
from skerry.ports.clock import Clock

_log = structlog.get_logger()


class Chores:
    """Runs chores of one kind in the background; `kind` names them in the log."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self._kind = kind
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, Retry] = {}
        self._not_before: dict[str, float] = {}
        self.troubles: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.on_trouble: Callable[[SkerryError], None] = lambda _: None

    def want(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """See to it that a chore is done; again is harmless, also while it is under way or waits."""
        task = self._tasks.get(key)
        if (task is None or task.done()) and self._not_before.get(key, 0.0) <= self._clock.monotonic():
            self._tasks[key] = asyncio.create_task(self._work(key, work))

    @property
    def under_way(self) -> bool:
        """Whether any chore is being done now."""
        return any(not task.done() for task in self._tasks.values())

    def forget(self, keep: AbstractSet[str]) -> None:
        """Stop what is wanted no more."""
        for key in (self._tasks.keys() | self.troubles.keys() | self._not_before.keys()) - keep:
            if task := self._tasks.pop(key, None):
                task.cancel()
            self._retries.pop(key, None)
            self._not_before.pop(key, None)
            self.troubles.pop(key, None)
            self.refused.pop(key, None)

    async def close(self) -> None:
        """Stop everything."""
        tasks = list(self._tasks.values())
        self.forget(frozenset())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as caught:
            error = as_failure(caught)
            wait_s = self._retries.setdefault(key, Retry()).next_wait_s(error)
            self._not_before[key] = self._clock.monotonic() + wait_s
            if self.troubles.get(key) != error.message:
                # A failure is told when it begins, not each time it is met again.
                _log.warning(f"{self._kind}.failed", key=key, code=error.code, reason=error.message)
                self.on_trouble(error)
            self.troubles[key] = error.message
            if isinstance(error, Rejected):
                self.refused[key] = error.message
        else:
            self._retries.pop(key, None)
            self._not_before.pop(key, None)
            self.troubles.pop(key, None)
            self.refused.pop(key, None)
        finally:
            self.on_change()
