"""Fetches ahead what sites below will need, in the order of its urgency, inside the link's budget."""

from __future__ import annotations

import asyncio

import structlog

from skerry.carrier.retrying import Retry
from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.errors import SkerryError, as_failure
from skerry.ports.clock import Clock
from skerry.relay.cache import BlobCache
from skerry.spec.relay import RelayState

_log = structlog.get_logger()

LOOK_EVERY_S = 60.0
MAX_WAIT_S = 30.0
GAVE_WAY_S = 1.0


class Prefetcher:
    """Brings what is wanted, one blob at a time; `trouble` says what hinders it."""

    def __init__(self, cache: BlobCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._wake = asyncio.Event()
        self._on = False
        self.trouble = ""

    def follow(self, state: RelayState) -> None:
        """Want what a newer state names."""
        self._cache.want({blob.digest: blob.size_bytes for blob in state.wanted})
        self._on = state.spec.prefetch
        self._wake.set()

    async def run_forever(self) -> None:
        """Fetch, for ever."""
        retry = Retry()
        while True:
            self._wake.clear()
            try:
                await self.fetch_all()
                retry.reset()
                wait_s = LOOK_EVERY_S
            except Exception as caught:
                wait_s = self._wait_s(as_failure(caught), retry)
            await sleep_unless_woken(self._clock, wait_s, self._wake)

    async def fetch_all(self) -> None:
        """Fetch what is wanted and not here, as far as there is room.

        Raises:
            SkerryError: why one did not come; the others are tried first.
        """
        failed: SkerryError | None = None
        self.trouble = ""
        for digest, size in self._cache.missing() if self._on else ():
            if not self._cache.has_room(digest):
                self.trouble = "the cache has no room for all that sites below will need"
                continue
            arrival = self._cache.bring(digest, size, urgent=False)
            while not arrival.ended:
                await arrival.change()
            if arrival.failed is not None:
                failed = arrival.failed
                if failed.retryable:
                    break  # the link is away or held back: for all of them
        if failed is not None:
            raise failed

    def _wait_s(self, error: SkerryError, retry: Retry) -> float:
        if error.code == "relay.gave_way":
            return GAVE_WAY_S
        if error.code != "relay.no_token" and not self.trouble:
            _log.info("prefetch.waits", code=error.code, reason=str(error))
        return min(MAX_WAIT_S, retry.next_wait_s(error))
