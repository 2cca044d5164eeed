"""Who is there although it says nothing: hosts that wait at the hub for news, and those that a relay vouches for.

Rules: a host that waits is there as of now, until its wait ends or its connection is cut. What is known here is written
to the store twice a minute, so that other replicas know it as well, and a hub that was ended does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice

import msgspec
import structlog

from skerry.kit.errors import as_failure
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HostRecord, HubStore

_log = structlog.get_logger()

HEARTBEAT_S = 30.0
AT_ONCE = 500
"""How many hosts are written in one transaction, so that nobody's report waits for long."""


class PresenceNotes:
    """Who is there. `note` and `waiting` are for the event loop, `fresh` for any thread."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._noted: dict[str, datetime] = {}
        self._failing = ""

    def note(self, host: str, at: datetime) -> None:
        """Note that a host was there at an instant; an older one changes nothing."""
        noted = self._noted.get(host)
        if noted is None or noted < at:
            self._noted[host] = at

    @contextmanager
    def waiting(self, host: str) -> Generator[None]:
        """A host waits at the hub for as long as this is open."""
        self._waiting[host] += 1
        try:
            yield
        finally:
            self._waiting[host] -= 1
            if self._waiting[host] <= 0:
                del self._waiting[host]
            self.note(host, self._clock.now())

    def forget(self, host: str) -> None:
        """Drop what is noted of a removed host."""
        self._noted.pop(host, None)

    def fresh(self, hosts: Sequence[HostRecord]) -> list[HostRecord]:
        """Return the records with when each host was last there, as far as this replica knows."""
        now = self._clock.now()
        return [self._freshened(host, now) for host in hosts]

    async def run_forever(self) -> None:
        """Write what is known to the store, twice a minute, for ever."""
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            try:
                await self.flush()
            except Exception as caught:
                error = as_failure(caught)
                if self._failing != error.code:
                    _log.error("presence.failing", code=error.code, reason=str(error))
                self._failing = error.code
            else:
                self._failing = ""

    async def flush(self) -> None:
        """Write what is known to the store; what could not be written is kept.

        Raises:
            Unavailable: the store cannot be used.
        """
        now = self._clock.now()
        for host in self._waiting:
            self.note(host, now)
        noted = iter(list(self._noted.items()))
        while some := dict(islice(noted, AT_ONCE)):
            await asyncio.to_thread(self._store.note_seen, some)
            for host, at in some.items():
                if self._noted.get(host) == at:
                    del self._noted[host]

    def _freshened(self, host: HostRecord, now: datetime) -> HostRecord:
        seen_at = now if host.name in self._waiting else self._noted.get(host.name)
        if seen_at is None or (host.last_seen_at is not None and seen_at <= host.last_seen_at):
            return host
        return msgspec.structs.replace(host, last_seen_at=seen_at)
