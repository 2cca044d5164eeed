"""Writes refusals into the audit, so that a flood of them cannot fill it.

The first refusal of a caller in one action is written at once. What follows is counted, and the count written after
a minute; while refusals go on, after twice as long each time, up to an hour. What is counted and not yet written is
lost when the hub ends.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from skerry.kit.errors import Unavailable
from skerry.ports.clock import Clock
from skerry.ports.hub_store import Audit, HubStore

FIRST_S = 60.0
LONGEST_S = 3600.0
MAX_CALLERS = 10_000
MAX_SUBJECT = 200

_log = structlog.get_logger()


class _Counted(msgspec.Struct):
    """Refusals since the last entry, and what the last one was of."""

    count: int = 0
    subject: str = ""


class Refusals:
    """Lives in one event loop. Callers are tokens by name, and "unknown": few, and still bounded."""

    def __init__(self, store: HubStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._counted: dict[tuple[str, str], _Counted] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._counted)

    async def note(self, who: str, action: str, subject: str) -> None:
        """Audit that `who` was refused an action. It is written when this returns, or counted.

        Raises:
            Unavailable: the entry cannot be written; the caller is to be refused all the same.
        """
        key, subject = (who, action), subject[:MAX_SUBJECT]
        counted = self._counted.get(key)
        if counted is None and len(self._counted) >= MAX_CALLERS:
            key = ("others", action)
            counted = self._counted.get(key)
        if counted is not None:
            counted.count += 1
            counted.subject = subject
            return
        self._counted[key] = _Counted()
        task = asyncio.get_running_loop().create_task(self._count(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._write(key, subject)

    async def _count(self, key: tuple[str, str]) -> None:
        window_s = FIRST_S
        while True:
            await self._clock.sleep(window_s)
            counted = self._counted[key]
            if not counted.count:
                del self._counted[key]
                return
            self._counted[key] = _Counted()
            window_s = min(2 * window_s, LONGEST_S)
            try:
                await self._write(key, f"{counted.count} more, the last of them {counted.subject}")
            except Unavailable as error:
                if error.code == "database.closed":
                    return  # the hub has ended, and what was counted with it
                _log.error("audit.failing", code=error.code, reason=str(error), refusals=counted.count)

    async def _write(self, key: tuple[str, str], subject: str) -> None:
        who, action = key
        audit = Audit(at=self._clock.now(), who=who, action=action, subject=subject, outcome="denied")
        await asyncio.to_thread(self._store.add_audit, audit)
