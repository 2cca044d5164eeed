"""Issues RelayStates: gathers what a relay shall be, signs it under the next generation, wakes the relays that ask.

A relay's state changes with its document, with who stands behind it and their keys, with what those are assigned, and
with the key of its port. Such changes are marked, and what is marked is issued a moment later, so that many changes
at a time make one state. Generations rise over a restored database, too: what a relay says that it holds is passed.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.hub.keeping import HubKeys, check_port_key, relay_certificate
from skerry.hub.recovering import MOST_AHEAD
from skerry.hub.relays_wanted import find_wanted
from skerry.kit.errors import Bug, Conflict, Missing, Rejected, Unavailable, as_failure
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HostRecord, HubStore
from skerry.ports.relay_records import RelayRecord
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.relay import (
    MAX_HOSTS_BELOW,
    MAX_RELAYS_BELOW,
    MAX_SITES_BELOW,
    MAX_WANTED,
    RELAY_STATE_TYPE,
    Relay,
    RelayState,
    relay_state_payload,
)
from skerry.trust.envelope import sign_document
from skerry.trust.relay import relay_subject
from skerry.trust.report import claimed_key

_log = structlog.get_logger()
T = TypeVar("T")

VALID_FOR = timedelta(days=60)
RENEW_BEFORE = timedelta(days=30)
GATHER_S = 1.0
"""How long changes are gathered before they are issued."""


class Topology(Protocol):
    """Who stands behind whom."""

    def below(self, relay: str) -> frozenset[str]:
        """Return the relays below one, at any depth."""
        ...

    def sites_behind(self, relay: str) -> frozenset[str]:
        """Return the sites whose hosts may come by a relay, or by one below it."""
        ...

    def key_of(self, relay: str) -> str:
        """Return the signing key that a relay enrolled with; empty when nobody has."""
        ...

    @property
    def names(self) -> list[str]:
        """The names of all relays, enrolled or not."""
        ...


class IssuedState(msgspec.Struct, frozen=True):
    """The newest RelayState of a relay; generation 0 before the first."""

    generation: int = 0
    envelope: JsonEnvelope | None = None
    expires_at: datetime | None = None


class RelayIssuer:
    """Keeps every relay's newest RelayState at hand and makes new ones."""

    def __init__(
        self,
        store: HubStore,
        clock: Clock,
        keys: HubKeys,
        *,
        notifier: Notifier,
        topology: Topology,
        quarantined: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys
        self._notifier = notifier
        self._topology = topology
        self._quarantined = quarantined
        self._issued: dict[str, IssuedState] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._marked: set[str] = set()
        self._marked_sites: set[str] = set()
        self._said: dict[str, int] = {}
        self._wake = asyncio.Event()
        mark = store.restored()
        self._base = mark.base if mark else 0

    async def issued(self, relay: str) -> IssuedState:
        """Return the newest RelayState of a relay."""
        held = self._issued.get(relay)
        if held is None:
            held = await asyncio.to_thread(self._load, relay)
            held = self._issued.setdefault(relay, held)
        return held

    async def issue(self, relay: str) -> bool:
        """Issue a new RelayState if what the relay shall be has changed, or the held one ages; tell whether it did."""
        async with self._locks[relay]:
            held = await self.issued(relay)
            made = await asyncio.to_thread(self._make, relay, held)
            if made is None:
                return False
            self._issued[relay] = made
        _log.info("relay.issued", relay=relay, generation=made.generation)
        self._notifier.notify(relay_subject(relay))
        return True

    async def issue_to(self, relay: str) -> JsonEnvelope:
        """Return the envelope of a relay's RelayState, as it is now."""
        await self.issue(relay)
        envelope = (await self.issued(relay)).envelope
        if envelope is None:
            raise Unavailable("relay.not_issued", f"nothing is issued to relay {relay} yet")
        return envelope

    def mark(self, relay: str) -> None:
        """Note that something about a relay may have changed."""
        self._marked.add(relay)
        self._wake.set()

    def mark_site(self, site: str) -> None:
        """Note that something about a site may have changed: its hosts, their keys, what they are to get."""
        self._marked_sites.add(site)
        self._wake.set()

    def mark_all(self) -> None:
        """Look at every relay once more."""
        for name in self._topology.names:
            self.mark(name)

    async def issue_marked(self) -> None:
        """Look at what is marked; what this does not get to is still marked."""
        sites, self._marked_sites = self._marked_sites, set()
        if sites:
            self._marked |= {
                name for name in self._topology.names if sites & self._topology.sites_behind(name)
            }
        while self._marked:
            relay = self._marked.pop()
            try:
                await self.issue(relay)
            except Missing:
                self.forget(relay)
            except BaseException:
                self._marked.add(relay)
                raise

    async def run_forever(self) -> None:
        """Issue what is marked, a moment after it was."""
        while True:
            await self._wake.wait()
            await self._clock.sleep(GATHER_S)
            self._wake.clear()
            try:
                await self.issue_marked()
            except Exception as caught:
                error = as_failure(caught)
                cause = error.__cause__ if isinstance(error, Bug) else None
                _log.error("relay.not_issued", code=error.code, reason=str(error), exc_info=cause)
                self._wake.set()
                await self._clock.sleep(30 * GATHER_S)

    async def renew_all(self) -> None:
        """Issue anew whatever expires before long; run now and then."""
        for name in self._topology.names:
            held = await self.issued(name)
            if held.expires_at is not None and held.expires_at - self._clock.now() < RENEW_BEFORE:
                await self.issue(name)

    def is_ahead(self, relay: str, generation: int) -> bool:
        """Take note of the generation that a relay says it holds; tell whether this hub has not issued it yet.

        Then the next one is above it. Nonsense numbers are passed over: following them would use up all there are.
        """
        held = self._issued.get(relay)
        known = max(held.generation if held else 0, int(self._clock.now().timestamp()))
        if generation > known + MOST_AHEAD:
            return False
        self._said[relay] = max(self._said.get(relay, 0), generation)
        return held is not None and generation > held.generation

    def check_tls_key(self, tls_key: str) -> None:
        """Raise unless a text is the public key of a port.

        Raises:
            Rejected: it is not (`tls_key.malformed`).
        """
        check_port_key(tls_key)

    def forget(self, relay: str) -> None:
        """Drop what is at hand of a removed relay, and wake it if it waits."""
        self._issued.pop(relay, None)
        self._said.pop(relay, None)
        self._marked.discard(relay)
        self._notifier.notify(relay_subject(relay))

    def _load(self, relay: str) -> IssuedState:
        record = self._store.relay(relay)
        content = self._store.relay_state(relay) if record is not None else None
        if record is None or content is None:
            return IssuedState(record.generation if record else 0)
        envelope = msgspec.json.decode(content, type=JsonEnvelope)
        return IssuedState(record.generation, envelope, record.state_expires_at)

    def _make(self, relay: str, held: IssuedState) -> IssuedState | None:
        record = self._store.relay(relay)
        if record is None or not record.sign_key:
            return None  # nobody to sign for
        now = self._clock.now()
        before = _payload(held.envelope) if held.envelope is not None else None
        said = self._said.get(relay, 0)
        state = self._gather(record, before, now)
        if before is not None and held.envelope is not None:
            ageing = held.expires_at is None or held.expires_at - now < RENEW_BEFORE
            ageing = ageing or claimed_key(held.envelope) != self._keys.key.key_id
            if not ageing and said <= held.generation and _content(before) == _content(state):
                return None
        generation = max(held.generation, said, self._base) + 1
        state = msgspec.structs.replace(state, generation=generation)
        envelope = sign_document(state, RELAY_STATE_TYPE, self._keys.key)
        content = msgspec.json.encode(envelope)
        try:
            self._store.issue_relay_state(relay, generation, content, state.expires_at, after=held.generation)
        except Conflict:
            self._issued.pop(relay, None)
            raise
        return IssuedState(generation, envelope, state.expires_at)

    def _gather(self, record: RelayRecord, before: RelayState | None, now: datetime) -> RelayState:
        name = record.name
        spec = msgspec.json.decode(record.document, type=Relay).spec
        behind = self._topology.sites_behind(name)
        sites, hosts = self._sites(name, behind)
        relays = {below: self._topology.key_of(below) for below in sorted(self._topology.below(name))}
        wanted = find_wanted(self._store, sites, hosts)
        held = before.certificate_pem if before is not None else ""
        return RelayState(
            relay=name,
            generation=1,
            issued_at=now,
            expires_at=now + VALID_FOR,
            spec=spec,
            sites=sites,
            relays=dict(_bounded(name, ((n, key) for n, key in relays.items() if key), MAX_RELAYS_BELOW)),
            wanted=tuple(wanted[:MAX_WANTED]),
            certificate_pem=self._certificate(record, server_names(spec.addresses), held, now),
        )

    def _sites(
        self, relay: str, behind: frozenset[str]
    ) -> tuple[dict[str, dict[str, str]], list[HostRecord]]:
        """Return the keys of the hosts of sites, and those hosts; not of those in quarantine, who go to the hub."""
        there = [host for host in self._store.hosts() if host.site in behind]
        hosts = _bounded(relay, (h for h in there if not self._quarantined(h.name)), MAX_HOSTS_BELOW)
        sites: dict[str, dict[str, str]] = {
            site: {} for site in _bounded(relay, sorted(behind), MAX_SITES_BELOW)
        }
        for host in hosts:
            if host.site in sites:
                sites[host.site][host.name] = host.sign_key
        return sites, [host for host in hosts if host.site in sites]

    def _certificate(self, record: RelayRecord, names: list[str], held: str, now: datetime) -> str:
        if not record.tls_key:
            return ""
        try:
            return relay_certificate(self._keys.data, record.tls_key, names, now, held=held)
        except Rejected as error:
            _log.warning("relay.no_certificate", relay=record.name, code=error.code, reason=error.message)
            return ""


def server_names(addresses: Iterable[str]) -> list[str]:
    """Return the host names and addresses, without ports, that a relay's addresses name."""
    names: list[str] = []
    for address in addresses:
        name = address.partition("]")[0].lstrip("[") if address.startswith("[") else address.partition(":")[0]
        if name not in names:
            names.append(name)
    return names


def _payload(envelope: JsonEnvelope) -> RelayState:
    # Our own signature, loaded from our own database: the payload is read, not trusted.
    return relay_state_payload(base64.b64decode(envelope["payload"]))


def _content(state: RelayState) -> tuple[object, ...]:
    return state.spec, state.sites, state.relays, state.wanted, state.certificate_pem


def _bounded(relay: str, found: Iterable[T], most: int) -> list[T]:
    """Return as many as a state may have; the others come to the hub through the relay, and are not held by it."""
    all_of_them = list(found)
    if len(all_of_them) > most:
        _log.warning("relay.too_many_below", relay=relay, found=len(all_of_them), most=most)
    return all_of_them[:most]
