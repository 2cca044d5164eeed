"""What hosts handed over and is not above yet: taken in groups of one transaction, handed up by priority.

Reports that tell something go before heartbeats, and metrics come last; those of one host keep their order. What a
full disk or a full queue does not let this relay take stays with the host, which is told nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from skerry.kit.errors import Unavailable
from skerry.ports.relay_store import Done, KeptMetrics, KeptReport, QueueSize, RelayStore, Taken, Taking
from skerry.spec.carrier import MAX_SYNC_REPORTS, JsonEnvelope
from skerry.spec.carrying import MAX_CARRIED, Carried
from skerry.spec.report import Report

_log = structlog.get_logger()

MAX_GROUP = 256
BATCH_ROWS = 2000
BATCH_BYTES = 2 << 20
"""Well below what the body of one request may have."""
_decode = msgspec.json.Decoder(JsonEnvelope).decode


class Batch(msgspec.Struct, frozen=True):
    """What goes up at one time; by host key, the newest sequence of its reports and of its metrics."""

    hosts: tuple[Carried, ...]
    reports: dict[str, int]
    metrics: dict[str, int]


class Queue:
    """Takes and hands up. Lives in one event loop; `on_taken` is called when there is something new."""

    def __init__(self, store: RelayStore, *, limit_bytes: int = 1 << 30) -> None:
        self._store = store
        self.limit_bytes = limit_bytes
        self._pending: list[tuple[Taking, asyncio.Future[Taken]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.on_taken: Callable[[], None] = lambda: None
        self.trouble = ""

    async def take(self, taking: Taking) -> Taken:
        """Keep what a host handed over; what is not taken is the host's to keep."""
        if not taking.reports and taking.metrics is None:
            return Taken(reports=True, metrics=False)
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._pending.append((taking, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await future

    async def let_go(self, key: str) -> None:
        """Forget what is held of a host: it is to hand over again what the hub has not acknowledged."""
        await asyncio.to_thread(self._store.let_go, key)

    async def forget(self, done: Sequence[Done], *, given_up: bool = False) -> None:
        """Remove what has arrived above."""
        if done:
            await asyncio.to_thread(lambda: self._store.forget(done, given_up=given_up))

    async def next_batch(self, now: float) -> Batch | None:
        """Return what to hand up next; None when there is nothing. `now` is in seconds since 1970."""
        return await asyncio.to_thread(self._next_batch, now)

    def size(self) -> QueueSize:
        """Return how much waits. Blocking, but not for long."""
        return self._store.size()

    def _next_batch(self, now: float) -> Batch | None:
        reports: dict[str, list[KeptReport]] = {}
        for one in self._store.waiting_reports(BATCH_ROWS, BATCH_BYTES):
            of_host = reports.get(one.key)
            if of_host is None and len(reports) >= MAX_CARRIED:
                continue
            of_host = reports.setdefault(one.key, [])
            if len(of_host) < MAX_SYNC_REPORTS:
                of_host.append(one)
        metrics: dict[str, KeptMetrics] = {}
        if len(reports) < MAX_CARRIED // 2:
            for found in self._store.waiting_metrics(MAX_CARRIED - len(reports), BATCH_BYTES // 2):
                if found.key not in reports:
                    metrics[found.key] = found
        if not reports and not metrics:
            return None
        hosts = [_carried(key, of_host, now) for key, of_host in reports.items()]
        hosts.extend(
            Carried(
                key=one.key,
                reports=(_decode(one.report),),
                metrics=_decode(one.envelope),
                age_s=max(0.0, now - one.taken_at),
            )
            for one in metrics.values()
        )
        return Batch(
            tuple(hosts),
            {key: of_host[-1].sequence for key, of_host in reports.items()},
            {key: one.sequence for key, one in metrics.items()},
        )

    async def _write(self) -> None:
        group: list[tuple[Taking, asyncio.Future[Taken]]] = []
        try:
            while self._pending:
                group, self._pending = self._pending[:MAX_GROUP], self._pending[MAX_GROUP:]
                await self._write_group(group)
        finally:
            self._writing = None
            # Nobody waits for ever, whatever ended this.
            for _, future in (*group, *self._pending):
                future.cancel()
            self._pending = []

    async def _write_group(self, group: list[tuple[Taking, asyncio.Future[Taken]]]) -> None:
        takings = [taking for taking, _ in group]
        try:
            taken = await asyncio.to_thread(lambda: self._store.take(takings, limit_bytes=self.limit_bytes))
        except Unavailable as error:
            self._note(f"what hosts hand over cannot be kept: {error.message}")
            taken = [Taken(reports=False, metrics=False)] * len(group)
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        else:
            full = not all(one.reports for one in taken)
            self._note("the queue is full: hosts keep what they have to tell" if full else "")
        for (_, future), one in zip(group, taken, strict=True):
            if not future.done():
                future.set_result(one)
        if any(one.reports or one.metrics for one in taken):
            self.on_taken()

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            if trouble:
                _log.warning("queue.failing", reason=trouble)
            else:
                _log.info("queue.restored")
        self.trouble = trouble


def tells_something(report: Report) -> bool:
    """Tell whether a report says more than that its host is there."""
    return bool(
        report.events or report.dropped_events or report.observed is not None or report.facts is not None
    )


def _carried(key: str, reports: Sequence[KeptReport], now: float) -> Carried:
    ordered = sorted(reports, key=lambda one: one.sequence)
    return Carried(
        key=key,
        reports=tuple(_decode(one.envelope) for one in ordered),
        age_s=max(0.0, now - ordered[-1].taken_at),
    )
