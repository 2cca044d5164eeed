"""The hub behind the carrier API: enrols hosts, takes their reports, answers with what is new.

The hot path is `sync` of a host that has nothing to say: one signature check, one grouped update, no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from securesystemslib.signer import Key

from skerry.hub.deltas import DeltaShelf
from skerry.hub.identities import Identities
from skerry.hub.issuing import Issuer
from skerry.hub.notifier import Notifier
from skerry.hub.presence import PresenceNotes
from skerry.hub.repository import Repository
from skerry.hub.window_room import WindowRoom
from skerry.kit.errors import Conflict, Missing, Unauthenticated, Unavailable, Untrusted
from skerry.ports.blobs import ReadableBlobs
from skerry.ports.carrier_backend import Gone
from skerry.ports.clock import Clock
from skerry.ports.host_identities import KeysRecord
from skerry.ports.hub_store import AppliedReport, Audit, HostRecord, HubStore
from skerry.spec.carrier import (
    TIME_TYPE,
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    HubTime,
    JsonEnvelope,
    KeyChange,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.report import REPORT_TYPE, Event, Report
from skerry.trust.envelope import sign_document, verify_document
from skerry.trust.key_change import claimed_keys, verify_key_change
from skerry.trust.keys import key_id, public_key
from skerry.trust.report import claimed_key, verify_metrics, verify_report
from skerry.trust.timekeeping import OFFSET_WORTH_CORRECTING
from skerry.trust.tokens import hash_secret, issue_blob_token, verify_blob_token

_log = structlog.get_logger()

BLOB_TOKEN_TTL = timedelta(hours=1)
RELOAD_EVERY_S = 1.0


class _KnownHost(msgspec.Struct):
    """A host at hand: its key, and the newest sequence this process has applied."""

    name: str
    site: str
    sign_key: str
    key: Key
    sequence: int
    told: bool = False


class HubBackend:
    """A `CarrierBackend` over the hub's store."""

    def __init__(
        self,
        store: HubStore,
        shelf: DeltaShelf,
        repository: Repository,
        clock: Clock,
        *,
        issuer: Issuer,
        notifier: Notifier,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._repository = repository
        self._keys = keys = repository.keys
        self._clock = clock
        self._issuer = issuer
        self._notifier = notifier
        self._hosts: dict[str, _KnownHost] = {}
        self._reloading = asyncio.Lock()
        self._changing_keys = asyncio.Lock()
        self._reload_at = 0.0
        self.identities = Identities(store, clock)
        self.presence = PresenceNotes(store, clock)
        self.windows = WindowRoom(store, clock)
        self._verifiers = {keys.key.key_id: keys.key.verifier}
        self.on_news: Callable[[], None] = lambda: None

    @property
    def blobs(self) -> ReadableBlobs:
        """Where blobs are read, deltas among them."""
        return self._shelf.readable

    async def trust_root(self, digest: str) -> bytes:
        """Return what join tokens pin."""
        return await asyncio.to_thread(self._repository.trust_root, digest)

    async def metadata(self, name: str) -> bytes:
        """Return a metadata file."""
        content = await asyncio.to_thread(self._repository.file, name)
        if content is None:
            raise Missing("metadata.absent", f"there is no metadata file {name[:150]}")
        return content

    async def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Give a host its place. The proof shows that it holds the private half of the key it names.

        The store checks that the site it names is the token's.
        """
        key_id(request.seal_key)  # refuses what is no key; secrets will be sealed to it
        report = verify_document(request.proof, REPORT_TYPE, Report, [public_key(request.sign_key)])
        if report.host != request.host:
            raise Untrusted("report.wrong_host", "the proof is not of this host")
        now = self._clock.now()
        host = HostRecord(
            name=request.host,
            site=report.site,
            sign_key=request.sign_key,
            seal_key=request.seal_key,
            enrolled_at=now,
        )
        audit = Audit(at=now, who=f"host:{request.host}", action="host.enroll", subject=f"site:{report.site}")
        record = await asyncio.to_thread(self._store.enroll_host, hash_secret(request.secret), host, audit)
        # A host that was removed and came back, or that takes another's place, begins anew here, too.
        self.forget_host(record.name)
        await self.identities.reload()
        self._remember(record)
        await self._issuer.issue(record.site)
        self.on_news()
        _log.info("host.enrolled", host=record.name, site=record.site)
        return EnrollAnswer(site=record.site, host=record.name)

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        """Take reports in order, then answer with what is new, waiting for it up to `request.wait_s`."""
        host = await self._known(claimed_key(request.reports[0]))
        reports = [
            verify_report(envelope, host.key, host=host.name, site=host.site) for envelope in request.reports
        ]
        self.identities.refuse(host.name)
        newest = reports[-1]
        replayed = newest.sequence <= host.sequence
        now = self._clock.now()
        fresh = [report for report in reports if report.sequence > host.sequence]
        recovering = self._issuer.recovering
        applied = [_applied(report, now, past=recovering.is_from_before(report)) for report in fresh]
        acknowledged = host.sequence
        if applied:
            try:
                if await self.identities.look([r for r in fresh if not recovering.is_from_before(r)]):
                    # Whoever waits with this identity asks again, so that two machines are soon found out.
                    self._notifier.notify(_waiting_key(host))
                acknowledged = await asyncio.to_thread(self._store.apply_reports, applied)
            except Missing:
                self.forget_host(host.name)
                raise Unauthenticated("host.unknown", f"{host.name} is not enrolled here any more") from None
            host.sequence = max(host.sequence, acknowledged)
            await self._look_ahead(host.site, fresh)
            if any(_may_move(report) for report in applied):
                self._issuer.mark(host.site)
            if any(report.observed or report.facts or report.events for report in applied):
                self.on_news()
        taken = 0
        if request.metrics is not None:
            taken = await self._take_metrics(host, request.metrics, newest)
        if replayed:
            # Perhaps a host whose answer was lost, perhaps somebody else: the number helps the one, not the other.
            return SyncAnswer(
                acknowledged=acknowledged, newest=self.identities.news_for(newest), metrics=taken
            )
        answer = await self._answer(host, newest, request, acknowledged, gone=gone)
        return msgspec.structs.replace(answer, metrics=taken) if taken else answer

    async def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Put a host's new keys in the place of the old ones. A change that was made already is confirmed."""
        old, new = claimed_keys(request.change)
        async with self._changing_keys:
            try:
                host = await self._known(old)
            except Unauthenticated:
                host = await self._known(new)
            change = verify_key_change(request.change, host.sign_key)
            if (change.host, change.site) != (host.name, host.site):
                raise Untrusted("key_change.wrong_host", "the change of keys is not of this host")
            if host.sign_key != change.sign_key:
                await self._put_keys(host, change)
        await self._issuer.issue(host.site)  # its neighbours know it by its key
        return KeyChangeAnswer(host=host.name, sign_key=change.sign_key)

    async def _put_keys(self, host: _KnownHost, change: KeyChange) -> None:
        self.identities.refuse(host.name)
        if key_id(change.sign_key) in self._hosts:
            raise Conflict("host.key_taken", "another host has that key")
        now, who = self._clock.now(), f"host:{host.name}"
        keys = KeysRecord(
            host=host.name, old_key=change.old_key, sign_key=change.sign_key, seal_key=change.seal_key
        )
        event = Event(at=now, kind="host.keys_changed", message="the old keys are refused from now on")
        audit = Audit(at=now, who=who, action="host.change_keys", subject=who)
        await asyncio.to_thread(self._store.change_keys, keys, event, audit)
        self._hosts.pop(key_id(change.old_key), None)
        host.sign_key, host.key = change.sign_key, public_key(change.sign_key)
        self._hosts[host.key.keyid] = host
        _log.info("host.keys_changed", host=host.name)

    def check_blob_token(self, token: str) -> str:
        """Return the host of a good token."""
        host = verify_blob_token(token, self._verifiers, self._clock.now()).host
        self.identities.refuse(host)
        return host

    async def deltas(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        """Return which deltas there are, and have others made."""
        return await self._shelf.answer(host, request)

    def forget_host(self, name: str) -> None:
        """Drop what is at hand of a removed host."""
        self._hosts = {key: host for key, host in self._hosts.items() if host.name != name}
        self.identities.forget(name)
        self.presence.forget(name)

    async def _answer(
        self,
        host: _KnownHost,
        newest: Report,
        request: SyncRequest,
        acknowledged: int,
        *,
        gone: Gone | None,
    ) -> SyncAnswer:
        wrong_clock = abs(newest.sent_at - self._clock.now()) > OFFSET_WORTH_CORRECTING
        if self._issuer.recovering.is_from_before(newest):
            # Perhaps a copy that somebody kept: to the host itself the time is what helps.
            time = self._time(host, newest) if wrong_clock else None
            return SyncAnswer(acknowledged=acknowledged, time=time)
        issued = await self._issuer.issued(host.site)
        forgotten = self._has_forgotten(host, newest)
        hurry = wrong_clock or request.want_token or forgotten
        held = self._issuer.recovering.held(host.site) is not None
        if (issued.generation <= newest.generation or held) and request.wait_s > 0 and not hurry:
            with self.presence.waiting(host.name):
                await self._notifier.wait(host.site, request.wait_s, also=_waiting_key(host), gone=gone)
            self.identities.refuse(host.name)
            if self._hosts.get(host.key.keyid) is not host:
                raise _unknown()  # removed while it waited
            issued = await self._issuer.issued(host.site)
        # A report of events alone, from a host's queue, does not say which generation the host holds.
        recovering = self._issuer.recovering
        silent = newest.generation == 0 and bool(newest.events) and recovering.guards(host.site)
        held = silent or recovering.held(host.site) is not None
        news = issued.envelope if issued.generation > newest.generation and not held else None
        return SyncAnswer(
            acknowledged=acknowledged,
            desired=news,
            time=self._time(host, newest) if wrong_clock else None,
            blob_token=self._blob_token(host) if news is not None or request.want_token else "",
            tell_all=forgotten,
            newest=self.identities.news_for(newest),
        )

    async def _take_metrics(self, host: _KnownHost, envelope: JsonEnvelope, newest: Report) -> int:
        """Store what a host measured and return the sequence it was told under; 0 when it was not taken.

        Whatever is wrong with it, the reports beside it count.
        """
        try:
            batch = verify_metrics(envelope, host.key, newest)
            await asyncio.to_thread(
                self._store.put_metric_windows,
                host.name, host.site, batch.windows, sequence=batch.sequence, at=self._clock.now(),
            )  # fmt: skip
        except (Untrusted, Unavailable) as error:
            _log.warning("metrics.refused", host=host.name, code=error.code, reason=error.message)
            return 0
        self.windows.count(len(batch.windows))
        if batch.dropped:
            _log.warning("metrics.dropped", host=host.name, windows=batch.dropped)
        return batch.sequence

    def _has_forgotten(self, host: _KnownHost, newest: Report) -> bool:
        """Tell whether what this hub has of a host may be older than what the host has told an earlier one."""
        host.told = host.told or newest.observed is not None
        return not host.told and self._issuer.recovering.guards(host.site)

    async def _look_ahead(self, site: str, reports: Sequence[Report]) -> None:
        """Hold the site if one of its hosts is ahead of what this hub has issued."""
        stored = (await self._issuer.issued(site)).generation
        newest = max(reports, key=lambda report: report.generation)
        await self._issuer.recovering.look(newest, stored)

    def _time(self, host: _KnownHost, newest: Report) -> JsonEnvelope:
        answer = HubTime(host=host.name, sequence=newest.sequence, now=self._clock.now())
        return sign_document(answer, TIME_TYPE, self._keys.key)

    def _blob_token(self, host: _KnownHost) -> str:
        return issue_blob_token(host.name, host.site, self._clock.now() + BLOB_TOKEN_TTL, self._keys.key)

    async def _known(self, claimed: str) -> _KnownHost:
        host = self._hosts.get(claimed)
        if host is None:
            async with self._reloading:  # whoever comes while the fleet is read waits for it
                # Anybody can send an unknown key: the whole fleet is read once a second at the most.
                if claimed not in self._hosts and self._clock.monotonic() >= self._reload_at:
                    for record in await asyncio.to_thread(self._store.hosts):
                        self._remember(record)
                    self._reload_at = self._clock.monotonic() + RELOAD_EVERY_S
            host = self._hosts.get(claimed)
        if host is None:
            raise _unknown()
        return host

    def _remember(self, record: HostRecord) -> None:
        key = public_key(record.sign_key)
        known = _KnownHost(record.name, record.site, record.sign_key, key, record.sequence)
        self._hosts.setdefault(key_id(record.sign_key), known)


def _may_move(report: AppliedReport) -> bool:
    """Tell whether what a host says of itself can move applications: its facts, and what failed its self-tests."""
    views = report.observed.applications.values() if report.observed else ()
    return report.facts is not None or any(view.failed_variants for view in views)


def _waiting_key(host: _KnownHost) -> str:
    return f"host:{host.name}"  # no name of a site has a colon


def _unknown() -> Unauthenticated:
    hint = "it was removed, or never joined: join again with a new token"
    return Unauthenticated("host.unknown", "no host with this key is enrolled here", hint=hint)


def _applied(report: Report, now: datetime, *, past: bool) -> AppliedReport:
    """Return what a report changes; one from the past tells what happened, and is no sign of life."""
    events = report.events
    if report.dropped_events:
        message = f"{report.dropped_events} older events were dropped because the host's queue was full"
        events = (Event(at=report.sent_at, kind="events.dropped", message=message), *events)
    return AppliedReport(
        host=report.host,
        site=report.site,
        sequence=report.sequence,
        seen_at=min(now, report.sent_at) if past else now,
        sent_at=report.sent_at,
        clock_offset_s=(report.clock - now).total_seconds(),
        generation=report.generation,
        observed=None if past else report.observed,
        facts=None if past else report.facts,
        events=events,
    )
