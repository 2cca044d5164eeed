"""The hub behind the carrier API: enrols hosts, takes their reports, answers with what is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.hub.deltas import DeltaShelf
from skerry.hub.hearing import TOPICS, Heard, Hearing, KnownHost, unknown_host
from skerry.hub.identities import Identities
from skerry.hub.issuing import Issuer
from skerry.hub.presence import PresenceNotes
from skerry.hub.questions import Questions
from skerry.hub.relays import Relays
from skerry.hub.relays_carry import Carrying
from skerry.hub.repository import Repository
from skerry.hub.telemetry_room import TelemetryRoom
from skerry.hub.window_room import WindowRoom
from skerry.kit.errors import Conflict, Missing, Unauthenticated, Untrusted
from skerry.ports.blobs import ReadableBlobs
from skerry.ports.carrier_backend import Gone
from skerry.ports.clock import Clock
from skerry.ports.host_identities import KeysRecord
from skerry.ports.hub_store import Audit, HostRecord, HubStore
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChange,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest
from skerry.spec.report import REPORT_TYPE, Event, Report
from skerry.trust.envelope import verify_document
from skerry.trust.key_change import claimed_keys, verify_key_change
from skerry.trust.keys import key_id, public_key
from skerry.trust.report import claimed_key
from skerry.trust.tokens import hash_secret, verify_blob_token

_log = structlog.get_logger()


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
        self._changing_keys = asyncio.Lock()
        self.presence = PresenceNotes(store, clock)
        self.windows = WindowRoom(store, clock)
        self.telemetry_room = TelemetryRoom(store, clock)
        self.hearing = Hearing(store, clock, issuer=issuer, notifier=notifier, key=keys.key)
        self.relays = Relays(
            store,
            clock,
            keys,
            notifier=notifier,
            quarantined=lambda name: bool(self.identities.quarantine(name)),
        )
        self.carrying = Carrying(self.hearing, self.relays, issuer, clock, notifier)
        self.carrying.on_present = self.presence.note
        self.hearing.on_news = self._tell_news
        self.hearing.on_facts = self.relays.issuing.mark_site
        self.hearing.on_windows = self.windows.count
        issuer.on_issued = self.relays.issuing.mark_site
        self._verifiers = {keys.key.key_id: keys.key.verifier}
        self.on_news: Callable[[], None] = lambda: None

    @property
    def identities(self) -> Identities:
        """The sessions of hosts' reports, and hosts in quarantine."""
        return self.hearing.identities

    async def wait_for_topics(self, seconds: float) -> bool:
        """Return True when messages of hosts' buses come, False when the time ran out or the hub stops."""
        return await self._notifier.wait(TOPICS, seconds)

    @property
    def questions(self) -> Questions:
        """What hosts are asked."""
        return self.hearing.questions

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
        self.hearing.remember(record)
        await self._issuer.issue(record.site)
        self.relays.issuing.mark_site(record.site)
        self.on_news()
        _log.info("host.enrolled", host=record.name, site=record.site)
        return EnrollAnswer(site=record.site, host=record.name)

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        """Take reports in order, then answer with what is new, waiting for it up to `request.wait_s`."""
        host = await self.hearing.known(claimed_key(request.reports[0]))
        heard = await self.hearing.take(host, request.reports, request.metrics)
        if heard.fresh:
            self.relays.note_direct(host.name)
        if heard.replayed:
            # Perhaps a host whose answer was lost, perhaps somebody else: the number helps the one, not the other.
            return SyncAnswer(
                acknowledged=heard.acknowledged,
                newest=self.identities.news_for(heard.newest),
                metrics=heard.metrics,
                tell_all=heard.broken,
            )
        answer = await self._answer(host, heard, request, gone)
        return msgspec.structs.replace(answer, metrics=heard.metrics) if heard.metrics else answer

    async def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Let a relay be the one its token names."""
        return await self.relays.enroll(request)

    async def carry(self, request: CarryRequest) -> CarryAnswer:
        """Take what is below a relay, and answer with what is new for it."""
        return await self.carrying.carry(request)

    async def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Put a host's new keys in the place of the old ones. A change that was made already is confirmed."""
        old, new = claimed_keys(request.change)
        async with self._changing_keys:
            try:
                host = await self.hearing.known(old)
            except Unauthenticated:
                host = await self.hearing.known(new)
            change = verify_key_change(request.change, host.sign_key)
            if (change.host, change.site) != (host.name, host.site):
                raise Untrusted("key_change.wrong_host", "the change of keys is not of this host")
            if host.sign_key != change.sign_key:
                await self._put_keys(host, change)
        await self._issuer.issue(host.site)  # its neighbours know it by its key
        self.relays.issuing.mark_site(host.site)
        return KeyChangeAnswer(host=host.name, sign_key=change.sign_key)

    async def _put_keys(self, host: KnownHost, change: KeyChange) -> None:
        self.identities.refuse(host.name)
        if self.hearing.has_key(key_id(change.sign_key)):
            raise Conflict("host.key_taken", "another host has that key")
        now, who = self._clock.now(), f"host:{host.name}"
        keys = KeysRecord(
            host=host.name, old_key=change.old_key, sign_key=change.sign_key, seal_key=change.seal_key
        )
        event = Event(at=now, kind="host.keys_changed", message="the old keys are refused from now on")
        audit = Audit(at=now, who=who, action="host.change_keys", subject=who)
        await asyncio.to_thread(self._store.change_keys, keys, event, audit)
        self.hearing.change_key(host, change.sign_key)
        _log.info("host.keys_changed", host=host.name)

    def check_blob_token(self, token: str) -> str:
        """Return the host or relay of a good token."""
        holder = verify_blob_token(token, self._verifiers, self._clock.now()).host
        self.identities.refuse(holder)
        self.relays.refuse_removed(holder)
        return holder

    def hosts_behind(self, holder: str) -> int:
        """Return for how many hosts the holder of a blob token asks."""
        return self.relays.hosts_behind(holder)

    async def deltas(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        """Return which deltas there are, and have others made."""
        return await self._shelf.answer(host, request)

    def _tell_news(self) -> None:
        self.on_news()

    async def readmit(self, name: str, audit: Audit) -> None:
        """End a host's quarantine; see `Identities.readmit`."""
        await self.identities.readmit(name, audit)
        host = self.hearing.named(name)
        if host is not None:
            self.carrying.tell_of(host)

    def forget_host(self, name: str) -> None:
        """Drop what is at hand of a removed host."""
        host = self.hearing.named(name)
        self.hearing.forget(name)
        if host is not None:
            self.carrying.tell_of(host)
        self.relays.forget_host(name)
        self.presence.forget(name)

    async def _answer(
        self, host: KnownHost, heard: Heard, request: SyncRequest, gone: Gone | None
    ) -> SyncAnswer:
        newest, hearing = heard.newest, self.hearing
        wrong_clock = hearing.is_off(newest)
        if self._issuer.recovering.is_from_before(newest):
            # Perhaps a copy that somebody kept: to the host itself the time is what helps.
            time = hearing.time_for(host.name, newest.sequence) if wrong_clock else None
            return SyncAnswer(acknowledged=heard.acknowledged, time=time)
        issued = await self._issuer.issued(host.site)
        forgotten = hearing.has_forgotten(host, newest)
        hurry = wrong_clock or request.want_token or forgotten
        held = self._issuer.recovering.held(host.site) is not None
        if (issued.generation <= newest.generation or held) and request.wait_s > 0 and not hurry:
            with self.presence.waiting(host.name):
                await self._notifier.wait(host.site, request.wait_s, also=host.waiting_key, gone=gone)
            self.identities.refuse(host.name)
            if not hearing.is_current(host):
                raise unknown_host()  # removed while it waited
            issued = await self._issuer.issued(host.site)
        # A report of events alone, from a host's queue, does not say which generation the host holds.
        recovering = self._issuer.recovering
        silent = newest.generation == 0 and bool(newest.events) and recovering.guards(host.site)
        held = silent or recovering.held(host.site) is not None
        news = issued.envelope if issued.generation > newest.generation and not held else None
        return SyncAnswer(
            acknowledged=heard.acknowledged,
            desired=news,
            time=hearing.time_for(host.name, newest.sequence) if wrong_clock else None,
            blob_token=hearing.blob_token(host) if news is not None or request.want_token else "",
            tell_all=forgotten,
            newest=self.identities.news_for(newest),
        )
