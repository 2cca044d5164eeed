"""The hub's relays: who they are, what they last said of themselves, and how one enrols.

A relay is its signing key. Its document says where it is and what it may use; who stands behind it is learnt from
what it carries (`skerry.hub.relays_ways`), and what it shall be is issued to it (`skerry.hub.relays_issuing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import msgspec
import structlog
from securesystemslib.signer import Key

from skerry.carrier.notifier import Notifier
from skerry.hub.keeping import HubKeys
from skerry.hub.relays_issuing import RelayIssuer
from skerry.hub.relays_path import Sightings
from skerry.hub.relays_ways import Ways
from skerry.kit.errors import Denied, Missing, Unauthenticated, Untrusted
from skerry.ports.clock import Clock
from skerry.ports.hub_store import Audit, HubStore
from skerry.ports.relay_records import RelayKeys, RelayRecord, RelaySeen
from skerry.spec.carrying import RelayEnrollAnswer, RelayEnrollRequest
from skerry.spec.relay import RELAY_REPORT_TYPE, Relay, RelayReport
from skerry.trust.envelope import verify_document
from skerry.trust.keys import key_id, public_key
from skerry.trust.relay import relay_subject
from skerry.trust.tokens import hash_secret

_log = structlog.get_logger()

RELOAD_EVERY_S = 1.0
LATE = 64
"""Reports that overtook one another on their way: so many numbers below the newest may still come, each once."""
ONLINE_FOR = timedelta(minutes=5)
"""A relay asks again within this time, unless it waits at the hub."""


class KnownRelay(msgspec.Struct):
    """A relay at hand. `record` is as stored; `waiting` counts its requests that wait at this hub.

    `floor` is the newest number that was stored when this process began; `seen` are late ones that have come. It last
    dialled the hub itself at `dialled_at`, as far as this process knows.
    """

    record: RelayRecord
    key: Key
    floor: int
    seen: set[int]
    waiting: int = 0
    dialled_at: datetime | None = None

    @property
    def name(self) -> str:
        """The relay's name."""
        return self.record.name

    @property
    def waiting_key(self) -> str:
        """What the relay's long-polls wait for; no name of a site has a colon."""
        return relay_subject(self.record.name)


class Relays:
    """What the hub knows of relays. Lives in one event loop; its readers may be in threads."""

    def __init__(
        self,
        store: HubStore,
        clock: Clock,
        keys: HubKeys,
        *,
        notifier: Notifier,
        quarantined: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._reload_at = 0.0
        self._reloading = asyncio.Lock()
        self._by_key: dict[str, KnownRelay] = {}
        self._documents: dict[str, Relay] = {}
        self.ways = Ways(store)
        self._put_at_hand(store.relays())
        self.issuing = RelayIssuer(
            store, clock, keys, notifier=notifier, topology=self, quarantined=quarantined
        )

    @property
    def upstreams(self) -> dict[str, tuple[str, ...]]:
        """The upstreams that each relay's document names."""
        return {name: document.spec.upstreams for name, document in dict(self._documents).items()}

    def below(self, relay: str) -> frozenset[str]:
        """Return the relays below one, at any depth."""
        return self.ways.below(relay, self.upstreams, self._clock.now())

    def sites_behind(self, relay: str) -> frozenset[str]:
        """Return the sites whose hosts may come by a relay, or by one below it."""
        return self.ways.sites({relay} | self.below(relay), self._clock.now())

    def hosts_behind(self, holder: str) -> int:
        """Return how many hosts came by the relay with this subject, or by one below it; 1 for a host."""
        kind, colon, name = holder.partition(":")
        if not (kind and colon):
            return 1
        return self.ways.count_hosts({name} | self.below(name), self._clock.now())

    def above(self, relay: str) -> frozenset[str]:
        """Return the relays that have this one below them."""
        return frozenset(name for name in self.names if name != relay and relay in self.below(name))

    @property
    def names(self) -> list[str]:
        """The names of all relays, enrolled or not."""
        return sorted(dict(self._documents))

    def came_by(self, relay: str) -> dict[str, datetime]:
        """Return the relays that one came by, and when last; those since it has dialled the hub itself."""
        now, known = self._clock.now(), self.get(relay)
        since = known.dialled_at if known is not None else None
        came = {name: self.ways.relay_came(name, relay, now) for name in self.names}
        return {name: at for name, at in came.items() if at is not None and (since is None or at > since)}

    def sightings(self, hosts: Iterable[str]) -> Sightings:
        """Return what the hub saw itself of hosts, and of relays."""
        now, names = self._clock.now(), list(hosts)
        direct = {name: self.ways.dialled_at(name) for name in names}
        dialled = {known.name: known.dialled_at for known in list(self._by_key.values())}
        came = {
            name: {relay: self.ways.host_came(relay, name, now) for relay in self.names} for name in names
        }
        return Sightings(
            hosts={name: at for name, at in direct.items() if at is not None},
            relays={name: at for name, at in dialled.items() if at is not None},
            came_by={
                name: {relay: at for relay, at in by.items() if at is not None} for name, by in came.items()
            },
        )

    def key_of(self, relay: str) -> str:
        """Return the signing key that a relay enrolled with; empty when nobody has."""
        known = self.get(relay)
        return known.record.sign_key if known is not None else ""

    def get(self, name: str) -> KnownRelay | None:
        """Return an enrolled relay, None when there is none of that name."""
        return next((known for known in list(self._by_key.values()) if known.name == name), None)

    def is_online(self, record: RelayRecord, now: datetime) -> bool:
        """Tell whether a relay was heard of a while ago at the most, or waits here."""
        known = self.get(record.name)
        seen = record.last_seen_at
        return bool(known and known.waiting) or (seen is not None and now - seen <= ONLINE_FOR)

    async def known(self, claimed: str) -> KnownRelay:
        """Return the relay with a key id.

        Raises:
            Unauthenticated: there is none (`relay.unknown`).
        """
        if claimed not in self._by_key:
            async with self._reloading:
                # Anybody can send an unknown key: they are read once a second at the most.
                if claimed not in self._by_key and self._clock.monotonic() >= self._reload_at:
                    self._put_at_hand(await asyncio.to_thread(self._store.relays))
                    self._reload_at = self._clock.monotonic() + RELOAD_EVERY_S
        found = self._by_key.get(claimed)
        if found is None:
            hint = "it was removed, or never joined: join again with a new token"
            raise Unauthenticated("relay.unknown", "no relay with this key is enrolled here", hint=hint)
        return found

    def is_current(self, known: KnownRelay) -> bool:
        """Tell whether a relay that was at hand a while ago still is, with that key."""
        return self._by_key.get(known.key.keyid) is known

    async def hear(self, known: KnownRelay, report: RelayReport) -> bool:
        """Store what a verified report says, once; tell whether it was new.

        Raises:
            Unauthenticated: the relay was removed (`relay.unknown`).
        """
        newest = known.record.sequence
        oldest = max(known.floor, newest - LATE)
        if report.sequence <= oldest or report.sequence in known.seen:
            return False
        late = report.sequence < newest
        known.seen.add(report.sequence)
        known.seen = {number for number in known.seen if number > max(newest, report.sequence) - LATE}
        if late:
            return True
        now = self._clock.now()
        seen = RelaySeen(
            relay=known.name,
            sequence=report.sequence,
            seen_at=now,
            clock_offset_s=(report.clock - now).total_seconds(),
            generation=report.generation,
            tls_key=report.tls_key,
            view=report.view,
        )
        before = known.record
        known.record = _seen(before, seen)  # before it is stored: the next one may come at once
        try:
            await asyncio.to_thread(self._store.apply_relay_report, seen)
        except Missing:
            self.forget(known.name)
            raise Unauthenticated("relay.unknown", f"relay {known.name} is not enrolled any more") from None
        if known.record.tls_key != before.tls_key or self.issuing.is_ahead(known.name, report.generation):
            self.issuing.mark(known.name)
        return True

    async def enroll(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Let a relay be the one its token names. The proof shows that it holds the private half of the key it names.

        Raises:
            Untrusted: the proof is not the relay's, or names no key of a port.
            Denied, Conflict: see `RelayRecords.enroll_relay`.
        """
        key = public_key(request.sign_key)
        report = verify_document(request.proof, RELAY_REPORT_TYPE, RelayReport, [key])
        if report.relay != request.relay:
            raise Untrusted("relay_report.wrong_relay", "the proof is not of this relay")
        self.issuing.check_tls_key(report.tls_key)
        now, who = self._clock.now(), relay_subject(request.relay)
        keys = RelayKeys(
            relay=request.relay, sign_key=request.sign_key, tls_key=report.tls_key, enrolled_at=now
        )
        audit = Audit(at=now, who=who, action="relay.enroll", subject=who)
        record = await asyncio.to_thread(self._store.enroll_relay, hash_secret(request.secret), keys, audit)
        if self.key_of(record.name) != record.sign_key:
            self._by_key = {k: known for k, known in self._by_key.items() if known.name != record.name}
        self._put_at_hand([record])
        for name in self.above(record.name):
            self.issuing.mark(name)  # they know it by its key
        envelope = await self.issuing.issue_to(record.name)
        _log.info("relay.enrolled", relay=record.name)
        return RelayEnrollAnswer(relay=record.name, state=envelope)

    async def reload(self, names: Iterable[str] = ()) -> None:
        """Read all relays anew, as after their documents changed, and issue what follows from it."""
        before = self.upstreams
        self._put_at_hand(await asyncio.to_thread(self._store.relays))
        for name in {*names, *(n for n in self.upstreams if before.get(n) != self.upstreams[n])}:
            self.issuing.mark(name)
            for upper in self.above(name):
                self.issuing.mark(upper)

    async def renew(self) -> None:
        """Issue what expires before long, and forget ways by which nobody has come for long; run now and then."""
        await self.issuing.renew_all()
        await asyncio.to_thread(self.ways.trim, self._clock.now())

    def refuse_removed(self, holder: str) -> None:
        """Raise when the holder of a blob token is a relay that has gone.

        Raises:
            Denied: it has (`relay.unknown`).
        """
        prefix, colon, name = holder.partition(":")
        if colon and prefix == "relay" and not self.key_of(name):
            raise Denied("relay.unknown", f"relay {name} is not enrolled any more")

    def note_direct(self, host: str) -> None:
        """Note that a host has dialled the hub itself."""
        self.ways.note_direct(host, self._clock.now())

    def forget_host(self, name: str) -> None:
        """Drop what is at hand of a removed host."""
        self.ways.forget_host(name)

    def forget(self, name: str) -> None:
        """Drop what is at hand of a removed relay, and wake it if it waits."""
        above = self.above(name)
        self._by_key = {key: known for key, known in self._by_key.items() if known.name != name}
        self._documents.pop(name, None)
        self.ways.forget_relay(name)
        self.issuing.forget(name)
        for upper in above:
            self.issuing.mark(upper)

    def _put_at_hand(self, records: Iterable[RelayRecord]) -> None:
        for record in records:
            document = msgspec.json.decode(record.document, type=Relay)
            self._documents[record.name] = document
            if not record.sign_key:
                continue
            there = self._by_key.get(key_id(record.sign_key))
            if there is None:
                made = KnownRelay(record, public_key(record.sign_key), record.sequence, set())
                self._by_key[key_id(record.sign_key)] = made
            else:
                newer = record if record.sequence > there.record.sequence else there.record
                there.record = msgspec.structs.replace(newer, document=record.document)


def _seen(record: RelayRecord, seen: RelaySeen) -> RelayRecord:
    told = {"view": seen.view, "view_at": seen.seen_at} if seen.view is not None else {}
    return msgspec.structs.replace(
        record,
        sequence=seen.sequence,
        last_seen_at=seen.seen_at,
        generation_held=seen.generation,
        clock_offset_s=seen.clock_offset_s,
        tls_key=seen.tls_key or record.tls_key,
        **told,
    )
