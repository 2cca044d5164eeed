"""Reports on their way: numbered, signed, kept on disk until the hub acknowledges them.

Events are merged into the newest report that was not sent yet, so that a long time offline makes few reports.
A report that was sent is never changed. The queue is bounded; what is dropped is counted and told. Each event names
the digest of the one before, so that the hub sees when one is missing or was altered.

Numbers are reserved in blocks, so that a heartbeat costs no write. Each block begins `SPARE` above the end of
the one before: a host whose disk is too full to reserve a block still says so under the numbers between, and
an event never gets a number that the hub has heard already and would ignore. A new database begins at random,
because the one before it may have been lost.

What a relay says that it holds is not sent again to it, and kept until the hub acknowledges it all the same: the
relay's disk may be lost. Each report names in `after` what was left out before it, so that who has not got that
neither takes it nor passes it on, and says so. Then, and when the one who keeps is another, all of it goes up again.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime

import msgspec

from skerry.agent.identity import Identity
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.ports.agent_store import AgentStore, KeptEvent, QueuedReport
from skerry.spec.carrier import MAX_SYNC_REPORTS, JsonEnvelope
from skerry.spec.facts import HostFacts
from skerry.spec.metrics import MetricWindow
from skerry.spec.questions import AnswerPart
from skerry.spec.report import REPORT_TYPE, Event, Observed, Report
from skerry.spec.telemetry import METRICS_TYPE, MetricBatch, TelemetryBatch
from skerry.spec.uplink import TopicBatch
from skerry.trust.chain import ChainHead, link_events
from skerry.trust.envelope import decode_document, sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.report import claimed_key, sign_answer, sign_batch

RESERVE = 1000
SPARE = 1_000_000
MAX_SEQUENCE = 1 << 53
MAX_QUEUED = 2000
MAX_EVENTS_PER_REPORT = 200
MAX_EVENT_BYTES_PER_REPORT = 64 << 10
MAX_PENDING_EVENTS = 1000
# Well below MAX_BODY_BYTES: the fresh report at the end has room, too.
MAX_QUEUED_BYTES_PER_REQUEST = 1 << 20


class _Entrusted(msgspec.Struct, frozen=True):
    """Events that there was no room for here and that a relay holds: lost only if it loses them."""

    keeper: str = ""
    up_to: int = 0
    events: int = 0


class Outbox:
    """Makes and keeps a host's reports. Safe to call from several threads."""

    def __init__(self, identity: Identity, store: AgentStore, session: str = "") -> None:
        self._identity = identity
        self._store = store
        self._session = session
        self._heard = ""
        self._lock = threading.Lock()
        reserved = store.load("sequence")
        self._reserved = secrets.randbelow(1 << 30) * SPARE if reserved is None else int(reserved)
        self._sequence = self._block_end = self._reserved
        self._begun = reserved is not None
        self._met = store.load("met") is not None
        self._moved = msgspec.json.decode(store.load("moved") or b"[]", type=list[QueuedReport])
        self._open: Report | None = None
        self._pending: deque[Event] = deque()
        self._dropped = 0
        self._queue = deque(report.sequence for report in store.reports(2 * MAX_QUEUED))
        self._chain = _newest_event(store)
        self._first = self._queue[0] if self._queue else self._sequence + 1
        self._entrusted = msgspec.json.decode(store.load("entrusted") or b"{}", type=_Entrusted)
        self._keeper: str | None = self._entrusted.keeper if self._entrusted.events else None
        self._forfeited = self._held = self._told = self._acknowledged = 0

    def take_key(self, key: SigningKey) -> None:
        """Sign with another key from now on; what is queued is signed anew when it is sent."""
        with self._lock:
            self._identity = msgspec.structs.replace(self._identity, key=key)

    def note(self, event: Event) -> None:
        """Remember an event; `flush` makes it durable."""
        with self._lock:
            if len(self._pending) >= MAX_PENDING_EVENTS:
                self._pending.popleft()
                self._dropped += 1
            self._pending.append(event)

    def flush(self, *, sent_at: datetime, clock: datetime) -> bool:
        """Queue what was noted as a report; True when there was something.

        Raises:
            Unavailable: the disk is full; what was noted stays in memory and is tried again.
        """
        with self._lock:
            self._finish_move()
            # What was dropped alone is not worth dropping another report for.
            if not self._pending and (not self._dropped or len(self._queue) >= MAX_QUEUED):
                return False
            before = self._open
            taken = _fitting_events(before.events if before else (), self._pending)
            if not taken and self._pending:
                before, taken = None, _fitting_events((), self._pending)
            # Counted before they go: a power cut between the two counts some twice, and none too few.
            surplus = len(self._queue) + (before is None) - MAX_QUEUED
            dropped = self._dropped + (self._part_with(surplus) if surplus > 0 else 0)
            last = self._queue[-1] if self._queue else 0
            linked, head = link_events(self._chain, taken)
            report = Report(
                host=self._identity.place.host,
                site=self._identity.place.site,
                sequence=before.sequence if before else self._next(durable=True),
                sent_at=sent_at,
                clock=clock,
                events=(*(before.events if before else ()), *linked),
                dropped_events=(before.dropped_events if before else 0) + dropped,
                session=self._session,
                after=before.after if before else last,
            )
            self._store.put_report(
                self._sign(report), events=[KeptEvent(one.number, encode_canonical(one)) for one in linked]
            )
            self._chain = head
            if before is None:
                self._queue.append(report.sequence)
            self._open = report
            self._dropped = 0
            if self._forfeited:
                # They are counted in the report now.
                left = self._entrusted.events - self._forfeited
                self._save_entrusted(msgspec.structs.replace(self._entrusted, events=left))
            for _ in taken:
                self._pending.popleft()
            if surplus > 0:
                self._store.drop_oldest(MAX_QUEUED)
                for _ in range(surplus):
                    self._queue.popleft()
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
            self._finish_move()
            waiting = len(self._queue)
            if self._held:
                waiting = sum(sequence > self._held for sequence in self._queue)
            queued = _fitting_reports(
                self._store.reports(MAX_SYNC_REPORTS - 1, above=self._held) if waiting else ()
            )
            if queued:
                self._open = None
                # On a full disk this fails and does not matter: only `_open` is ever changed.
                with contextlib.suppress(Unavailable):
                    self._store.mark_sent(queued[-1].sequence)
            after, envelopes = self._left_out(), list[JsonEnvelope]()
            for report in queued:
                envelopes.append(self._envelope(report, after))
                after = report.sequence
            if len(queued) < waiting:
                return envelopes, None
            fresh = Report(
                host=self._identity.place.host,
                site=self._identity.place.site,
                sequence=self._next(durable=False),
                sent_at=sent_at,
                clock=clock,
                generation=generation,
                observed=observed,
                facts=facts,
                session=self._session,
                heard=self._heard,
                after=after,
            )
            return [*envelopes, sign_document(fresh, REPORT_TYPE, self._identity.key)], fresh.sequence

    def everything(
        self,
        *,
        sent_at: datetime,
        clock: datetime,
        generation: int,
        observed: Observed | None,
        facts: HostFacts | None,
    ) -> list[JsonEnvelope]:
        """Return all that the hub has not acknowledged and a fresh report, to be carried to it by hand."""
        with self._lock:
            self._finish_move()
            queued = self._store.reports(2 * MAX_QUEUED) if self._queue else ()
            if queued:
                self._open = None
                with contextlib.suppress(Unavailable):
                    self._store.mark_sent(queued[-1].sequence)
            after, envelopes = 0, list[JsonEnvelope]()
            for report in queued:
                envelopes.append(self._envelope(report, after))
                after = report.sequence
            fresh = Report(
                host=self._identity.place.host,
                site=self._identity.place.site,
                sequence=self._next(durable=False),
                sent_at=sent_at,
                clock=clock,
                generation=generation,
                observed=observed,
                facts=facts,
                session=self._session,
                heard=self._heard,
                after=after,
            )
            return [*envelopes, sign_document(fresh, REPORT_TYPE, self._identity.key)]

    def batch(self, sequence: int, windows: tuple[MetricWindow, ...], dropped: int) -> JsonEnvelope:
        """Return the envelope of some windows, that go with the fresh report of that sequence."""
        with self._lock:
            place, key = self._identity.place, self._identity.key
            batch = MetricBatch(
                host=place.host, site=place.site, sequence=sequence, windows=windows, dropped=dropped
            )
            return sign_document(batch, METRICS_TYPE, key)

    def beside(self, sequence: int, batch: TelemetryBatch | TopicBatch) -> JsonEnvelope:
        """Return the envelope of a batch that goes with the fresh report of that sequence."""
        with self._lock:
            place, key = self._identity.place, self._identity.key
            named = msgspec.structs.replace(batch, host=place.host, site=place.site, sequence=sequence)
            return sign_batch(named, key)

    def answer(self, sequence: int, part: AnswerPart) -> JsonEnvelope:
        """Return the envelope of a part of an answer that goes with the fresh report of that sequence."""
        with self._lock:
            place, key = self._identity.place, self._identity.key
            named = msgspec.structs.replace(part, host=place.host, site=place.site, sequence=sequence)
            return sign_answer(named, key)

    def acknowledge(self, up_to: int, *, newest: str = "", held: int = 0, keeper: str = "") -> None:
        """Forget what the hub has; what a full disk does not let go of is sent, and ignored, again.

        When the hub, or a `keeper` that holds reports up to `held`, has more than we ever sent, our database was lost
        or is an old copy: go on above it. What a new database has queued until then was ignored by the hub, and is told
        again under new numbers. `newest` names what the hub has of us when that is another run's: then even our own
        number was not ours.

        Raises:
            Unavailable: the disk is too full to change the numbers; the next acknowledgement tries again.
        """
        with self._lock:
            self._heard = newest or self._heard
            used = max(up_to, held)
            if self._sequence < used < MAX_SEQUENCE or (newest and self._sequence == up_to):
                # A number between our blocks was our own, used while the disk was full.
                foreign = used > self._reserved + SPARE
                if foreign and self._queue and not self._met:
                    self._renumber(used)
                    return
                self._sequence = self._block_end = used
                self._reserved = used if foreign else self._reserved
            # A full disk: what it does not let go of is sent again, and ignored.
            with contextlib.suppress(Unavailable):
                up_to = min(up_to, self._sequence)
                self._acknowledged = max(self._acknowledged, up_to)
                if self._queue and self._queue[0] <= up_to:
                    self._store.acknowledge(up_to)
                    while self._queue and self._queue[0] <= up_to:
                        self._queue.popleft()
                # A relay may not have heard yet what the hub has of us.
                if not self._met and (not keeper or up_to >= self._first):
                    # From now on what the hub does not list as new it has; so no lower number may follow a restart.
                    used = max(self._reserved, self._sequence)
                    self._store.save({"met": b"1", "sequence": str(used).encode()})
                    self._met = True
                if self._entrusted.events and self._entrusted.up_to <= up_to:
                    self._save_entrusted(_Entrusted())

    def entrust(self, keeper: str, held: int, *, told: int = 0, again: bool = False) -> bool:
        """Note up to which sequence the upstream holds what we sent; to be called after `acknowledge`.

        `told` is the fresh report's sequence when that said how things stand and has arrived. Return whether nothing
        but what the hub has acknowledged counts as told any more: all else goes up `again`, because the hub or a relay
        misses some of it, or because another `keeper` is to hold it now.
        """
        with self._lock:
            anew = again or self._keeper not in (None, keeper)
            if anew:
                self._forfeit()
                self._told = 0
            self._keeper = keeper
            self._held = held if keeper and not anew and held <= self._sequence else 0
            self._told = 0 if again else max(self._told, told)
            return anew

    def _left_out(self) -> int:
        """Return the newest report that told something and is not sent again because it is held; 0 if there is none."""
        newest = max(0 if self._forfeited else self._entrusted.up_to, self._told)
        for sequence in self._queue:
            if sequence > self._held:
                break
            newest = max(newest, sequence)
        return newest if newest > self._acknowledged else 0

    def _forfeit(self) -> None:
        """Count what was entrusted to one who lost it, or who is asked no more: the hub may get it, or may not."""
        self._dropped += self._entrusted.events - self._forfeited
        self._forfeited = self._entrusted.events

    def _save_entrusted(self, entrusted: _Entrusted) -> None:
        content = msgspec.json.encode(entrusted) if entrusted.events else None
        self._store.save({"entrusted": content})
        self._entrusted, self._forfeited = entrusted if content else _Entrusted(), 0

    def _renumber(self, up_to: int) -> None:
        """Give all that is queued numbers above `up_to`, so that a power cut neither loses nor doubles any."""
        sequence = max(up_to, self._reserved) + SPARE
        moved: list[QueuedReport] = []
        for queued in self._store.reports(len(self._queue)):
            sequence += 1
            after = moved[-1].sequence if moved else 0
            report = msgspec.structs.replace(
                _read(queued), sequence=sequence, session=self._session, after=after
            )
            moved.append(self._sign(report))
        reserved = sequence + RESERVE
        self._store.save({"moved": msgspec.json.encode(moved), "sequence": str(reserved).encode()})
        self._sequence, self._reserved, self._block_end = sequence, reserved, reserved
        self._moved, self._open, self._begun = moved, None, True
        self._held, self._told, self._first = 0, 0, up_to + 1
        self._finish_move()

    def _finish_move(self) -> None:
        if not self._moved:
            return
        for report in self._moved:
            self._store.put_report(report)
        self._store.acknowledge(self._moved[0].sequence - 1)
        self._store.save({"moved": None})
        self._queue = deque(report.sequence for report in self._moved)
        self._moved = []

    def _next(self, *, durable: bool) -> int:
        """Return the next number; one that is not `durable` may be used again after a crash with a full disk."""
        if self._sequence >= self._block_end:
            first = max(self._sequence, self._reserved + SPARE)
            try:
                self._store.save({"sequence": str(first + RESERVE).encode()})
            except Unavailable:
                if durable or not self._begun or self._sequence + 1 >= first:
                    raise
            else:
                self._sequence, self._begun = first, True
                self._reserved = self._block_end = first + RESERVE
        self._sequence += 1
        return self._sequence

    def _part_with(self, reports: int) -> int:
        """Return how many events are lost with the oldest reports; those that a relay holds are entrusted to it."""
        lost, entrusted = 0, self._entrusted
        for queued in self._store.reports(reports):
            report = _read(queued)
            events = len(report.events) + report.dropped_events
            if report.sequence <= self._held:
                entrusted = _Entrusted(self._keeper or "", report.sequence, entrusted.events + events)
            else:
                lost += events
        if entrusted is not self._entrusted:
            forfeited = self._forfeited
            self._save_entrusted(entrusted)
            self._forfeited = forfeited
        return lost

    def _envelope(self, queued: QueuedReport, after: int) -> JsonEnvelope:
        """Return the envelope of a queued report, as it is to follow on others.

        It is signed by the present key: the hub knows no older one.
        """
        envelope, report = msgspec.json.decode(queued.envelope, type=JsonEnvelope), _read(queued)
        if claimed_key(envelope) == self._identity.key.key_id and report.after == after:
            return envelope
        return sign_document(msgspec.structs.replace(report, after=after), REPORT_TYPE, self._identity.key)

    def _sign(self, report: Report) -> QueuedReport:
        envelope = sign_document(report, REPORT_TYPE, self._identity.key)
        return QueuedReport(report.sequence, msgspec.json.encode(envelope))


def _newest_event(store: AgentStore) -> ChainHead:
    """Return where the chain of this host's events ends: an event is kept in one step with the report that tells it."""
    kept = store.kept_events(1)
    return ChainHead(kept[-1].number, digest_of(kept[-1].content)) if kept else ChainHead()


def _read(queued: QueuedReport) -> Report:
    """Return a report from our own queue; it is our own signature, so there is nothing to verify."""
    envelope = msgspec.json.decode(queued.envelope, type=JsonEnvelope)
    return decode_document(base64.b64decode(envelope["payload"]), Report)


def _fitting_events(before: Sequence[Event], more: Sequence[Event]) -> list[Event]:
    """Return as many events as one report has room for beside those it has; at least one in an empty report."""
    room = MAX_EVENT_BYTES_PER_REPORT - sum(len(encode_canonical(event)) for event in before)
    taken: list[Event] = []
    for event in more:
        room -= len(encode_canonical(event))
        if len(before) + len(taken) >= MAX_EVENTS_PER_REPORT or (room < 0 and (before or taken)):
            break
        taken.append(event)
    return taken


def _fitting_reports(queued: Sequence[QueuedReport]) -> Sequence[QueuedReport]:
    """Return the oldest reports that fit into one request, at least one."""
    room = MAX_QUEUED_BYTES_PER_REQUEST
    for number, report in enumerate(queued):
        room -= len(report.envelope)
        if room < 0:
            return queued[: max(1, number)]
    return queued
