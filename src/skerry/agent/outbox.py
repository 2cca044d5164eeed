"""Reports on their way: numbered, signed, kept on disk until the hub acknowledges them.

Events are merged into the newest report that was not sent yet, so that a long time offline makes few reports.
A report that was sent is never changed. Sequences are reserved in blocks: a heartbeat costs no write, and a
host whose disk is full can still say so. The queue is bounded; what is dropped is counted and told.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

import msgspec

from skerry.agent.identity import Identity
from skerry.kit.errors import Conflict, Unavailable
from skerry.ports.agent_store import AgentStore, QueuedReport
from skerry.spec.carrier import MAX_SYNC_REPORTS, JsonEnvelope
from skerry.spec.facts import HostFacts
from skerry.spec.report import REPORT_TYPE, Event, Observed, Report
from skerry.trust.envelope import sign_document

RESERVE = 1000
MAX_QUEUED = 2000
MAX_EVENTS_PER_REPORT = 200
MAX_PENDING_EVENTS = 1000


class Outbox:
    """Makes and keeps a host's reports. Safe to call from several threads."""

    def __init__(self, identity: Identity, store: AgentStore) -> None:
        self._identity = identity
        self._store = store
        self._lock = threading.Lock()
        self._reserved = int(store.load("sequence") or b"0")
        self._sequence = self._reserved
        self._open: Report | None = None
        self._pending: list[Event] = []
        self._dropped = 0
        self._queued = bool(store.reports(1))

    def note(self, event: Event) -> None:
        """Remember an event; `flush` makes it durable."""
        with self._lock:
            if len(self._pending) >= MAX_PENDING_EVENTS:
                self._pending.pop(0)
                self._dropped += 1
            self._pending.append(event)

    def flush(self, *, sent_at: datetime, clock: datetime) -> bool:
        """Queue what was noted as a report; True when there was something.

        Raises:
            Unavailable: the disk is full; what was noted stays in memory and is tried again.
        """
        with self._lock:
            if not self._pending:
                return False
            before = self._open if self._open and len(self._open.events) < MAX_EVENTS_PER_REPORT else None
            room = MAX_EVENTS_PER_REPORT - (len(before.events) if before else 0)
            taken = self._pending[:room]
            report = Report(
                host=self._identity.place.host,
                site=self._identity.place.site,
                sequence=before.sequence if before else self._next(),
                sent_at=sent_at,
                clock=clock,
                events=(*(before.events if before else ()), *taken),
                dropped_events=(before.dropped_events if before else 0) + self._dropped,
            )
            try:
                self._store.put_report(QueuedReport(report.sequence, self._sign(report)))
            except Conflict:
                # It was sent meanwhile: begin another one at the next flush.
                self._open = None
                return True
            self._open = report
            self._queued = True
            self._dropped = 0
            del self._pending[: len(taken)]
            self._dropped += self._store.drop_oldest(MAX_QUEUED)
            return True

    def collect(
        self,
        *,
        sent_at: datetime,
        clock: datetime,
        generation: int,
        observed: Observed | None,
        facts: HostFacts | None,
    ) -> tuple[list[JsonEnvelope], int | None]:
        """Return the envelopes of one request, and the sequence of the fresh one (None when the queue fills it)."""
        with self._lock:
            queued: Sequence[QueuedReport] = self._store.reports(MAX_SYNC_REPORTS - 1) if self._queued else ()
            if queued:
                self._store.mark_sent(queued[-1].sequence)
                self._open = None
            envelopes = [msgspec.json.decode(report.envelope, type=JsonEnvelope) for report in queued]
            if len(queued) == MAX_SYNC_REPORTS - 1:
                return envelopes, None
            fresh = Report(
                host=self._identity.place.host,
                site=self._identity.place.site,
                sequence=self._next(),
                sent_at=sent_at,
                clock=clock,
                generation=generation,
                observed=observed,
                facts=facts,
                dropped_events=self._dropped,
            )
            return [*envelopes, sign_document(fresh, REPORT_TYPE, self._identity.key)], fresh.sequence

    def acknowledge(self, up_to: int) -> None:
        """Forget what the hub has. When it has more than we ever sent (our database was lost), go on above it."""
        with self._lock:
            if self._queued:
                self._store.acknowledge(up_to)
                self._queued = bool(self._store.reports(1))
            if self._sequence < up_to < 1 << 53:
                self._sequence = up_to
                self._reserved = up_to

    def _next(self) -> int:
        if self._sequence >= self._reserved:
            try:
                self._store.save({"sequence": str(self._sequence + RESERVE).encode()})
            except Unavailable:
                # A full disk: a sequence that is used twice after a crash is ignored by the hub, not harmful.
                self._sequence += 1
                return self._sequence
            self._reserved = self._sequence + RESERVE
        self._sequence += 1
        return self._sequence

    def _sign(self, report: Report) -> bytes:
        return msgspec.json.encode(sign_document(report, REPORT_TYPE, self._identity.key))
