"""Hears hosts: believes their reports by their keys, applies each once, and stores what they measured.

The same for a host that dials the hub and for one whose reports a relay hands up. The hot path is a host that has
nothing to say: one signature check, one grouped update, no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from securesystemslib.signer import Key

from skerry.carrier.notifier import Notifier
from skerry.hub.identities import Identities
from skerry.hub.issuing import Issuer
from skerry.hub.questions import Questions
from skerry.hub.telemetry_ingest import TelemetryIngest
from skerry.kit.errors import Conflict, Denied, Missing, Unauthenticated, Unavailable, Untrusted
from skerry.ports.clock import Clock
from skerry.ports.hub_store import AppliedReport, HostRecord, HubStore
from skerry.spec.carrier import TIME_TYPE, HubTime, JsonEnvelope
from skerry.spec.questions import AnswerPart
from skerry.spec.report import Event, Report
from skerry.spec.telemetry import TelemetryBatch
from skerry.spec.uplink import TopicBatch
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey, key_id, public_key
from skerry.trust.report import unbroken, verify_metrics, verify_report
from skerry.trust.timekeeping import OFFSET_WORTH_CORRECTING
from skerry.trust.tokens import issue_blob_token

_log = structlog.get_logger()

BLOB_TOKEN_TTL = timedelta(hours=1)
RELOAD_EVERY_S = 1.0
SILENCE = timedelta(hours=1)
"""A silence that is worth remembering: shorter ones say nothing about how long a site may be away."""
LONGEST_AGE_S = 10 * 366 * 86400.0
"""What a relay may say that it has held a report for; beyond it dates end."""


class KnownHost(msgspec.Struct):
    """A host at hand: its key, the newest sequence this process has applied, and when it last heard of the host."""

    name: str
    site: str
    sign_key: str
    key: Key
    sequence: int
    told: bool = False
    heard_at: datetime | None = None

    @property
    def waiting_key(self) -> str:
        """What the host's long-polls wait for beside its site; no name of a site has a colon."""
        return f"host:{self.name}"


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a host's reports, of which `newest` is the last.

    `replayed`: there was none to apply, or a part of them is missing (`broken`); then the number is all that is
    answered. `fresh`: something was applied. `metrics` is the sequence of the batch that was taken.
    """

    newest: Report
    acknowledged: int
    replayed: bool = False
    broken: bool = False
    fresh: bool = False
    metrics: int = 0


TOPICS = "topics"
"""What is notified when messages of hosts' buses were stored."""


class Hearing:
    """What the hub knows of hosts' keys, and how it takes what they say.

    `on_news` is called when a host says what rollouts may go by; `on_session` when another run of a host has begun,
    or a host was put in quarantine; `on_facts` with a site, when a host says what may change what it wants;
    `on_windows` with how many windows of metrics were stored.
    """

    def __init__(
        self, store: HubStore, clock: Clock, *, issuer: Issuer, notifier: Notifier, key: SigningKey
    ) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._notifier = notifier
        self._key = key
        self._hosts: dict[str, KnownHost] = {}
        self._reloading = asyncio.Lock()
        self._reload_at = 0.0
        self.identities = Identities(store, clock)
        self.telemetry = TelemetryIngest(store, clock)
        self.questions = Questions(store, clock, notifier)
        self.on_news: Callable[[], None] = lambda: None
        self.on_session: Callable[[KnownHost], None] = lambda _: None
        self.on_facts: Callable[[str], None] = lambda _: None
        self.on_windows: Callable[[int], None] = lambda _: None

    async def known(self, claimed: str) -> KnownHost:
        """Return the host with a key id.

        Raises:
            Unauthenticated: there is none (`host.unknown`).
        """
        host = self._hosts.get(claimed)
        if host is None:
            async with self._reloading:  # whoever comes while the fleet is read waits for it
                # Anybody can send an unknown key: the whole fleet is read once a second at the most.
                if claimed not in self._hosts and self._clock.monotonic() >= self._reload_at:
                    for record in await asyncio.to_thread(self._store.hosts):
                        self.remember(record)
                    self._reload_at = self._clock.monotonic() + RELOAD_EVERY_S
            host = self._hosts.get(claimed)
        if host is None:
            raise unknown_host()
        return host

    def remember(self, record: HostRecord) -> None:
        """Keep a host at hand."""
        key = public_key(record.sign_key)
        known = KnownHost(record.name, record.site, record.sign_key, key, record.sequence)
        known.heard_at = record.last_seen_at
        self._hosts.setdefault(key_id(record.sign_key), known)

    def forget(self, name: str) -> None:
        """Drop what is at hand of a removed host."""
        self._hosts = {key: host for key, host in self._hosts.items() if host.name != name}
        self.identities.forget(name)

    def is_current(self, host: KnownHost) -> bool:
        """Tell whether a host that was at hand a while ago still is, with that key."""
        return self._hosts.get(host.key.keyid) is host

    def has_key(self, name: str) -> bool:
        """Tell whether a host with that key id is at hand."""
        return name in self._hosts

    def change_key(self, host: KnownHost, sign_key: str) -> None:
        """Know a host by another key from now on."""
        self._hosts.pop(host.key.keyid, None)
        host.sign_key, host.key = sign_key, public_key(sign_key)
        self._hosts[host.key.keyid] = host

    async def take(
        self,
        host: KnownHost,
        envelopes: Sequence[JsonEnvelope],
        metrics: JsonEnvelope | None = None,
        *,
        age_s: float = 0.0,
    ) -> Heard:
        """Take a host's reports in order, and what it measured with the last of them.

        `age_s` is for how long relays have held the last one.

        Raises:
            Untrusted: one of them is not the host's; then nothing is taken.
            Denied: the host is in quarantine, perhaps because of these (`host.quarantined`).
            Unauthenticated: the host was removed (`host.unknown`).
        """
        reports = [
            verify_report(envelope, host.key, host=host.name, site=host.site) for envelope in envelopes
        ]
        self.identities.refuse(host.name)
        newest, whole = reports[-1], unbroken(reports, host.sequence)
        broken = len(whole) < len(reports)  # a relay lost some: the host has them still
        replayed = broken or newest.sequence <= host.sequence
        fresh = [report for report in whole if report.sequence > host.sequence]
        acknowledged = host.sequence
        if fresh:
            acknowledged = await self._apply(host, fresh, timedelta(seconds=min(age_s, LONGEST_AGE_S)))
        taken = await self._take_metrics(host, metrics, newest) if metrics is not None else 0
        return Heard(
            newest=newest,
            acknowledged=acknowledged,
            replayed=replayed,
            broken=broken,
            fresh=bool(fresh),
            metrics=taken,
        )

    def is_off(self, report: Report, age_s: float = 0.0) -> bool:
        """Tell whether the host's idea of the time is worth correcting."""
        age = timedelta(seconds=min(age_s, LONGEST_AGE_S))
        return abs(report.sent_at - (self._clock.now() - age)) > OFFSET_WORTH_CORRECTING

    def time_for(self, subject: str, sequence: int) -> JsonEnvelope:
        """Return the hub's time for the sender of one report."""
        answer = HubTime(host=subject, sequence=sequence, now=self._clock.now())
        return sign_document(answer, TIME_TYPE, self._key)

    def blob_token(self, host: KnownHost) -> str:
        """Return a token with which a host reads blobs."""
        return self.token_for(host.name, host.site)

    def token_for(self, holder: str, site: str) -> str:
        """Return a token with which somebody reads blobs."""
        return issue_blob_token(holder, site, self._clock.now() + BLOB_TOKEN_TTL, self._key)

    def refuse(self, host: KnownHost) -> None:
        """Raise when a host that was at hand a while ago may not be answered any more.

        Raises:
            Denied: it is in quarantine (`host.quarantined`).
            Unauthenticated: it was removed, or has other keys now (`host.unknown`).
        """
        self.identities.refuse(host.name)
        if not self.is_current(host):
            raise unknown_host()

    def waiting_key(self, claimed: str) -> str:
        """Return what the long-polls of the host with a key id wait for; empty when it is not at hand."""
        host = self._hosts.get(claimed)
        return host.waiting_key if host is not None else ""

    def named(self, name: str) -> KnownHost | None:
        """Return the host of a name, None when it is not at hand."""
        return next((host for host in self._hosts.values() if host.name == name), None)

    def has_forgotten(self, host: KnownHost, newest: Report) -> bool:
        """Tell whether what this hub has of a host may be older than what the host has told an earlier one."""
        host.told = host.told or newest.observed is not None
        return not host.told and self._issuer.recovering.guards(host.site)

    def knows_enough(self, site: str) -> bool:
        """Tell whether a site may be handed a DesiredState by others than a host that has just reported.

        After a restore, a host of it must have told first what it holds: it may be ahead of this hub.
        """
        recovering = self._issuer.recovering
        if not recovering.guards(site):
            return True
        return recovering.held(site) is None and any(
            host.told for host in self._hosts.values() if host.site == site
        )

    async def _apply(self, host: KnownHost, fresh: Sequence[Report], age: timedelta) -> int:
        now, recovering = self._clock.now(), self._issuer.recovering
        applied = [_applied(report, now, age, past=recovering.is_from_before(report)) for report in fresh]
        try:
            if await self.identities.look([r for r in fresh if not recovering.is_from_before(r)]):
                # Whoever waits with this identity asks again, so that two machines are soon found out.
                self._notifier.notify(host.waiting_key)
                self.on_session(host)
            if host.heard_at is not None and now - host.heard_at >= SILENCE:
                await asyncio.to_thread(self._note_silence, host.name, now)
            acknowledged = await asyncio.to_thread(self._store.apply_reports, applied)
        except Denied:
            self.on_session(host)
            raise
        except Missing:
            self.forget(host.name)
            raise Unauthenticated("host.unknown", f"{host.name} is not enrolled here any more") from None
        host.sequence, host.heard_at = max(host.sequence, acknowledged), now
        await self._look_ahead(host.site, fresh)
        if any(_may_move(report) for report in applied):
            self._issuer.mark(host.site)
            self.on_facts(host.site)
        if any(_asks(report) for report in applied):
            self._issuer.mark_site(host.site)
        if any(report.observed or report.facts or report.events for report in applied):
            self.on_news()
        return acknowledged

    def _note_silence(self, name: str, now: datetime) -> None:
        """Note for how long nothing was heard of a host by anybody: another replica, or a relay, may have."""
        record = self._store.host(name)
        seen_at = record.last_seen_at if record is not None else None
        if seen_at is not None and now - seen_at >= SILENCE:
            self._store.note_silence(name, seen_at, now)

    async def _take_metrics(self, host: KnownHost, envelope: JsonEnvelope, newest: Report) -> int:
        """Store what a host measured and return the sequence it was told under; 0 when it was not taken.

        Whatever is wrong with it, the reports beside it count.
        """
        try:
            batch = verify_metrics(envelope, host.key, newest)
            if isinstance(batch, AnswerPart):
                await self.questions.take(host.name, host.site, batch)
                return batch.sequence
            if isinstance(batch, TelemetryBatch):
                await self.telemetry.take(host.name, host.site, batch)
                return batch.sequence
            if isinstance(batch, TopicBatch):
                await asyncio.to_thread(self._store.put_topic_batch, batch, self._clock.now())
                self._notifier.notify(TOPICS)
                return batch.sequence
            await asyncio.to_thread(
                self._store.put_metric_windows,
                host.name, host.site, batch.windows, sequence=batch.sequence, at=self._clock.now(),
            )  # fmt: skip
        except (Untrusted, Unavailable, Conflict) as error:
            _log.warning("metrics.refused", host=host.name, code=error.code, reason=error.message)
            return 0
        self.on_windows(len(batch.windows))
        if batch.dropped:
            _log.warning("metrics.dropped", host=host.name, windows=batch.dropped)
        return batch.sequence

    async def _look_ahead(self, site: str, reports: Sequence[Report]) -> None:
        """Hold the site if one of its hosts is ahead of what this hub has issued."""
        stored = (await self._issuer.issued(site)).generation
        newest = max(reports, key=lambda report: report.generation)
        await self._issuer.recovering.look(newest, stored)


def unknown_host() -> Unauthenticated:
    """Return the error for a key that no host has."""
    hint = "it was removed, or never joined: join again with a new token"
    return Unauthenticated("host.unknown", "no host with this key is enrolled here", hint=hint)


def _may_move(report: AppliedReport) -> bool:
    """Tell whether what a host says of itself can move applications: facts, failed self-tests, devices pulled out."""
    observed = report.observed
    views = observed.applications.values() if observed else ()
    lost = any(one.state == "absent" for one in observed.bindings.values()) if observed else False
    return report.facts is not None or lost or any(view.failed_variants for view in views)


def _asks(report: AppliedReport) -> bool:
    """Tell whether a host says something of its certificates that the hub's document does not show yet."""
    return report.observed is not None and bool(report.observed.pki.request or report.observed.pki.crl)


def _applied(report: Report, now: datetime, age: timedelta, *, past: bool) -> AppliedReport:
    """Return what a report changes; one from the past tells what happened, and is no sign of life."""
    events = report.events
    if report.dropped_events:
        message = f"{report.dropped_events} older events were dropped because the host's queue was full"
        events = (Event(at=report.sent_at, kind="events.dropped", message=message), *events)
    heard_at = now - age
    return AppliedReport(
        host=report.host,
        site=report.site,
        sequence=report.sequence,
        seen_at=min(heard_at, report.sent_at) if past else heard_at,
        sent_at=report.sent_at,
        clock_offset_s=(report.clock - heard_at).total_seconds(),
        generation=report.generation,
        observed=None if past else report.observed,
        facts=None if past else report.facts,
        events=events,
    )
