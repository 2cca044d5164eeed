"""Seals secrets to the hosts of a site, for its DesiredState.

Rules: a value is sealed to hosts alone whose assignments use it; what was sealed is taken over as it is until the
version, the host's key or its use changes, since sealing the same once more gives other bytes; who can read what is
durable before anybody can. A secret that cannot be sealed now keeps nothing else from being issued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from skerry.hub.secret_keeping import Offer, SecretKeeper, secrets_of
from skerry.hub.site_use import SiteUse
from skerry.kit.errors import SkerryError, Untrusted
from skerry.matching.bindings import secrets_joined
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HostRecord, HubStore
from skerry.ports.secrets import ExposureRecord, SecretRecord
from skerry.spec.binding import BindingSpec
from skerry.spec.desired import DesiredState
from skerry.spec.secret import SealedSecret, SecretOrder
from skerry.trust.keys import key_id
from skerry.trust.sealing import Binding, seal_secret

_log = structlog.get_logger()

MAX_REVOKED = 1000


class Sealed(msgspec.Struct, frozen=True):
    """What a DesiredState says of secrets: by host sealed values and what it is to make, and ids of what is revoked."""

    secrets: dict[str, tuple[SealedSecret, ...]] = {}
    revoked: tuple[str, ...] = ()
    orders: dict[str, tuple[SecretOrder, ...]] = {}


class Sealer:
    """Seals for one site after another. Blocking; call it in a thread."""

    def __init__(
        self, store: HubStore, keeper: SecretKeeper, clock: Clock, *, is_barred: Callable[[str], bool]
    ) -> None:
        """Nothing new is sealed to a host that `is_barred`, such as one in quarantine."""
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._is_barred = is_barred

    def add(self, use: SiteUse, desired: DesiredState) -> DesiredState:
        """Return the document with the secrets of its site."""
        sealed = self.seal(use, desired.bindings)
        return msgspec.structs.replace(
            desired, secrets=sealed.secrets, revoked_secrets=sealed.revoked, secret_orders=sealed.orders
        )

    def seal(self, use: SiteUse, bindings: Sequence[BindingSpec] = ()) -> Sealed:
        """Return the secrets of a site, with new values sealed where there were none.

        An application uses those of the `bindings` that it gets on a host as well.
        """
        needed = {host.name: _needed_on(host.name, use, bindings) for host in use.hosts}
        names = sorted(frozenset[str]().union(*needed.values()))
        offers = self._keeper.offers(names, use.site)
        values: dict[str, bytes] = {}
        exposures: list[ExposureRecord] = []
        given: dict[str, tuple[SealedSecret, ...]] = {}
        orders: dict[str, tuple[SecretOrder, ...]] = {}
        for host in use.hosts:
            before = use.before.secrets.get(host.name, ()) if use.before else ()
            held = {(one.id, one.key): one for one in before}
            found = [
                sealed
                for name in sorted(needed[host.name])
                for sealed in self._for_host(host, offers[name], held, values=values, exposures=exposures)
            ]
            if found:
                given[host.name] = tuple(found)
            known = (
                {one.id for one in use.before.secret_orders.get(host.name, ())} if use.before else set[str]()
            )
            to_make = [one for name in sorted(needed[host.name]) for one in offers[name].given if one.at_site]
            if self._is_barred(host.name):
                to_make = [one for one in to_make if one.id in known]
            if to_make:
                orders[host.name] = tuple(_order(one) for one in to_make)
                # Nothing of these is exposed; but who has them is told when they are revoked.
                exposures += [self._exposure(one, host) for one in to_make if one.id not in known]
        self._store.note_exposures(exposures)
        return Sealed(given, tuple(self._store.revoked_secrets(use.site.name, MAX_REVOKED)), orders)

    def _for_host(
        self,
        host: HostRecord,
        offer: Offer,
        held: Mapping[tuple[str, str], SealedSecret],
        *,
        values: dict[str, bytes],
        exposures: list[ExposureRecord],
    ) -> list[SealedSecret]:
        try:
            key = key_id(host.seal_key)
        except Untrusted as error:  # enrolment takes no such key; one host must not keep the others waiting
            _log.error("secret.unsealed", host=host.name, code=error.code)
            return []
        found: list[SealedSecret] = []
        for record in offer.given:
            if record.at_site:
                continue
            if (before := held.get((record.id, key))) is not None:
                found.append(before)
            elif not self._is_barred(host.name):
                try:
                    if record.id not in values:
                        values[record.id] = self._keeper.value(record)
                    found.append(_sealed(record, values[record.id], host, key))
                except SkerryError as error:
                    _log.error("secret.unsealed", secret=record.name, host=host.name, code=error.code)
                    continue
                exposures.append(self._exposure(record, host))
        return found

    def _exposure(self, record: SecretRecord, host: HostRecord) -> ExposureRecord:
        return ExposureRecord(
            host=host.name,
            secret=record.id,
            site=host.site,
            name=record.name,
            version=record.version,
            sealed_at=self._clock.now(),
        )


def _order(record: SecretRecord) -> SecretOrder:
    assert record.making is not None, "what hosts make is stored with how"
    return SecretOrder(
        id=record.id,
        name=record.name,
        version=record.version,
        making=record.making,
        rotate_every_s=record.rotate_every_s,
        not_before=record.not_before,
        expires_at=record.expires_at,
    )


def _needed_on(host: str, use: SiteUse, bindings: Sequence[BindingSpec]) -> frozenset[str]:
    found: set[str] = set()
    for name in use.applications.get(host, ()):
        release = use.releases[name]
        found |= secrets_of(release) | secrets_joined(release.application.spec.needs, bindings, host=host)
    return frozenset(found)


def _sealed(record: SecretRecord, value: bytes, host: HostRecord, key: str) -> SealedSecret:
    binding = Binding(host=host.name, name=record.name, version=record.version, id=record.id)
    return SealedSecret(
        id=record.id,
        name=record.name,
        version=record.version,
        key=key,
        sealed=seal_secret(value, host.seal_key, binding),
        not_before=record.not_before,
        expires_at=record.expires_at,
    )
