"""How much of what hosts measured the hub keeps: two weeks of it, and no more windows than there is room for.

Rules: nothing is refused for want of room: what is least needed goes, first what no running rollout judges by, then
what is oldest. Windows are whole or gone: were they merged into longer ones here, what a host tells again would count
twice.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from skerry.kit.errors import as_failure
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore

_log = structlog.get_logger()

KEEP = 1_000_000
KEEP_FOR = timedelta(days=14)
SLACK = 50_000


class WindowRoom:
    """Keeps what hosts measured within bounds: now and then, and whenever `slack` windows have come.

    Of `keep` and `slack` the sum is what there may be at any time, but for what arrives while some of it goes.
    """

    def __init__(self, store: HubStore, clock: Clock, *, keep: int = KEEP, slack: int = SLACK) -> None:
        self._store = store
        self._clock = clock
        self.keep = keep
        self.slack = slack
        self._came = 0
        self._trimming: asyncio.Task[None] | None = None
        self._failing = ""

    def count(self, windows: int) -> None:
        """Note that windows have come, and make room for more in time."""
        self._came += windows
        if self._came >= self.slack and (self._trimming is None or self._trimming.done()):
            self._came = 0
            self._trimming = asyncio.create_task(self._try_to_trim())

    async def trim(self) -> None:
        """Forget what is too old or too much.

        Raises:
            Unavailable: the store cannot be used.
        """
        needed = await asyncio.to_thread(self._needed)
        before = self._clock.now() - KEEP_FOR
        while await asyncio.to_thread(self._store.trim_metric_windows, before, keep=self.keep, needed=needed):
            pass

    async def _try_to_trim(self) -> None:
        try:
            await self.trim()
        except Exception as caught:
            error = as_failure(caught)
            if self._failing != error.code:
                _log.error("windows.failing", code=error.code, reason=str(error))
            self._failing = error.code
        else:
            self._failing = ""

    def _needed(self) -> frozenset[str]:
        """Return the releases that running rollouts bring, and those that they are compared with."""
        running = self._store.rollouts(running_only=True)
        before = {progress.previous for record in running for progress in record.sites.values()}
        return frozenset({record.release for record in running} | before - {""})
