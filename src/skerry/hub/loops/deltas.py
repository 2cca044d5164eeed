"""The delta loop: has the deltas made that rollouts under way will need, and makes what is queued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from skerry.hub.deltas import DeltaShelf
from skerry.hub.foreseeing import foresee_deltas
from skerry.kit.errors import Bug, as_failure
from skerry.ports.hub_store import HubStore, RolloutRecord

_log = structlog.get_logger()


class DeltaLoop:
    """Looks ahead once for every rollout that begins, and for every new attempt of one."""

    def __init__(self, store: HubStore, shelf: DeltaShelf) -> None:
        self._store = store
        self._shelf = shelf
        self._seen: set[tuple[str, int]] = set()
        self._new: list[RolloutRecord] = []
        self._wake = asyncio.Event()

    def follow(self, running: Sequence[RolloutRecord]) -> None:
        """Note which rollouts are under way."""
        keys = {(record.name, record.attempt) for record in running}
        self._new += [record for record in running if (record.name, record.attempt) not in self._seen]
        self._seen = keys
        if self._new:
            self._wake.set()

    async def run_forever(self) -> None:
        """Look ahead and make deltas, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_ahead())
            group.create_task(self._shelf.run_forever())

    async def _look_ahead(self) -> None:
        while True:
            while self._new:
                record = self._new.pop(0)
                try:
                    pairs = await asyncio.to_thread(foresee_deltas, self._store, record)
                    await self._shelf.prepare(pairs)
                except Exception as caught:
                    # Hosts ask for what they need anyway.
                    error = as_failure(caught)
                    cause = error.__cause__ if isinstance(error, Bug) else None
                    _log.error("deltas.not_foreseen", rollout=record.name, code=error.code, exc_info=cause)
                else:
                    _log.info("deltas.foreseen", rollout=record.name, deltas=len(pairs))
            self._wake.clear()
            await self._wake.wait()
