"""Issues intermediates to the hosts of a site, for its DesiredState, and says who is revoked.

Rules: a host gets one for the key that it asks for in its signed report, whether the one before has run out or not; the
next one for the same key from half of the life on, or when what it may name has changed. Never for a key that was
revoked, nor to a host in quarantine. What was issued is taken over as it is. One host's trouble keeps no other waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog

from skerry.hub.pki_keeping import PkiFile
from skerry.hub.site_use import SiteUse
from skerry.kit.errors import SkerryError, Untrusted
from skerry.kit.quantities import parse_duration
from skerry.ports.authorities import AuthorityRecord
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HostRecord, HubStore
from skerry.spec.desired import DesiredState
from skerry.spec.pki import DEFAULT_DOMAIN, Authority, HostPki, RevokedAuthority, SitePki
from skerry.spec.site import Site, SiteSpec
from skerry.trust.authorities import (
    check_crl,
    inspect_authority,
    issue_authority,
    key_hash,
    make_crl,
    requested_key,
    revoked_by,
)
from skerry.trust.pki import authority_name, bounds_of, half_of

_log = structlog.get_logger()

MAX_LIVE = 32
"""Intermediates of one host that have not run out: more keys than that are not lost by accident."""


class SiteAuthorities:
    """Issues for one site after another. Blocking; call it in a thread.

    Nothing new goes to a host that `is_barred`, such as one in quarantine.
    """

    def __init__(
        self,
        store: HubStore,
        file: PkiFile,
        clock: Clock,
        *,
        domain: str = DEFAULT_DOMAIN,
    ) -> None:
        self.is_barred: Callable[[str], bool] = lambda _: False
        self.file = file
        self.domain = domain
        self._store = store
        self._clock = clock
        self._failing: set[tuple[str, str]] = set()

    def add(self, use: SiteUse, desired: DesiredState) -> DesiredState:
        """Return the DesiredState with the site's certificates, issued anew where they are due."""
        now = self._clock.now()
        spec = msgspec.json.decode(use.site.document, type=Site).spec
        records = [one for one in self._store.authorities(use.site.name) if one.not_after > now]
        before = use.before.pki if use.before else SitePki()
        hosts: dict[str, Authority] = {}
        for host in use.hosts:
            record = self._for_host(host, spec, records, now)
            if record is not None and record.chain:
                hosts[host.name] = _authority(record, _crl_of(host, before, record.chain))
        revoked = [one for one in records if one.revoked_at is not None]
        return msgspec.structs.replace(
            desired,
            pki=SitePki(
                domain=self.domain,
                roots=self.file.state.roots,
                hosts=hosts,
                crls=(*self._lists(revoked, before, now), *self.file.state.upper_crls),
                revoked=tuple(
                    RevokedAuthority(serial=one.serial, key=one.key, not_after=one.not_after)
                    for one in sorted(revoked, key=lambda one: (one.not_after, one.serial))[-4096:]
                ),
            ),
        )

    def due_sites(self) -> set[str]:
        """Return the sites whose hosts are to get their next intermediates; what has run out is forgotten."""
        now = self._clock.now()
        self._store.forget_authorities(now - timedelta(days=1))
        records = self._store.authorities()
        counting = {one.issuer for one in records}
        issuers = {key_hash(one.key.encode()) for one in self.file.state.issuers}
        self.file.drop(frozenset(issuers - counting))
        newest = {one.host: one for one in records if one.revoked_at is None}
        return {one.site for one in newest.values() if renew_from(one) <= now}

    def _for_host(
        self, host: HostRecord, spec: SiteSpec, records: list[AuthorityRecord], now: datetime
    ) -> AuthorityRecord | None:
        """Return the intermediate of a host; what is issued is stored and added to the records."""
        told = host.observed.pki if host.observed else HostPki()
        self._adopt(host, told, records, now)
        own = [one for one in records if one.host == host.name and one.revoked_at is None and one.chain]
        held = own[-1] if own else None
        if self.is_barred(host.name):
            return held
        try:
            asked = requested_key(told.request) if told.request else ""
            wanted = next((one for one in reversed(own) if one.key == asked), None) if asked else held
            if asked and wanted is None:
                if len(own) >= MAX_LIVE:
                    raise Untrusted("pki.too_many_keys", f"{host.name} has asked with {len(own)} keys")
                return self._issue(host, told.request, spec, records, now=now)
            if wanted is not None and (renew_from(wanted) <= now or self._is_outdated(wanted, host, spec)):
                return self._issue(host, wanted.chain, spec, records, now=now)
        except SkerryError as error:
            if (host.name, error.code) not in self._failing:
                _log.error("pki.not_issued", host=host.name, code=error.code, reason=error.message)
            self._failing.add((host.name, error.code))
            return held
        self._failing = {key for key in self._failing if key[0] != host.name}
        return wanted

    def _issue(
        self, host: HostRecord, key: str, spec: SiteSpec, records: list[AuthorityRecord], *, now: datetime
    ) -> AuthorityRecord:
        own = requested_key(key)
        if any(one.key == own and one.revoked_at is not None for one in records):
            raise Untrusted("pki.key_revoked", f"{host.name} asks with a key that was revoked")
        issuer = self.file.issuer
        chain = issue_authority(
            issuer,
            key,
            authority_name(host.name, own),
            bounds_of(host.site, self.domain, spec.networks),
            now=now,
            tolerance=timedelta(seconds=parse_duration(spec.offline_tolerance)),
        )
        found = inspect_authority(chain)
        record = AuthorityRecord(
            serial=found.serial,
            host=host.name,
            site=host.site,
            key=own,
            issuer=key_hash(issuer.key),
            chain=chain,
            issued_at=now,
            not_after=found.not_after,
        )
        # Durable before anybody has it: what is not known cannot be revoked.
        self._store.add_authority(record)
        records.append(record)
        _log.info("pki.issued", host=host.name, serial=record.serial)
        return record

    def _adopt(self, host: HostRecord, told: HostPki, records: list[AuthorityRecord], now: datetime) -> None:
        """Note an intermediate that a host uses and this hub has forgotten, as after it was restored."""
        if not told.serial or told.not_after is None or told.not_after <= now:
            return
        known = {one.serial for one in records}
        if told.serial in known or told.serial in {one.serial for one in self._store.authorities()}:
            return
        record = AuthorityRecord(
            serial=told.serial,
            host=host.name,
            site=host.site,
            key="",
            issuer="",
            chain="",
            issued_at=now,
            not_after=told.not_after,
        )
        self._store.add_authority(record)
        records.append(record)

    def _is_outdated(self, record: AuthorityRecord, host: HostRecord, spec: SiteSpec) -> bool:
        """Tell whether what a host may name has changed."""
        wanted = bounds_of(host.site, self.domain, spec.networks)
        return inspect_authority(record.chain).bounds != wanted

    def _lists(self, revoked: Sequence[AuthorityRecord], before: SitePki, now: datetime) -> list[str]:
        """Return the list of each issuer that this hub is or was; one that says the same is taken over as it is."""
        found: list[str] = []
        for stored in self.file.state.issuers:
            name = key_hash(stored.key.encode())
            own = {one.serial: one.revoked_at or now for one in revoked if one.issuer in (name, "")}
            held = next((crl for crl in before.crls if _says(crl, stored.chain, frozenset(own))), "")
            found.append(held or make_crl(stored.issuing, own.items(), now))
        return found


def _says(crl: str, chain: str, serials: frozenset[str]) -> bool:
    try:
        check_crl(crl, chain)
        return revoked_by(crl) == serials
    except Untrusted:
        return False


def _crl_of(host: HostRecord, before: SitePki, chain: str) -> str:
    """Return a host's own list, as it told it last; one that is not its own is left out."""
    told = host.observed.pki.crl if host.observed else ""
    held = before.hosts.get(host.name)
    for crl in (told, held.crl if held else ""):
        if crl and _says(crl, chain, frozenset()):
            return crl
    return ""


def renew_from(record: AuthorityRecord) -> datetime:
    """Return from when on a host gets the next one; of one that this hub has forgotten, when it runs out."""
    return half_of(record.issued_at, record.not_after) if record.chain else record.not_after


def _authority(record: AuthorityRecord, crl: str) -> Authority:
    return Authority(
        chain=record.chain,
        serial=record.serial,
        key=record.key,
        renew_from=renew_from(record),
        not_after=record.not_after,
        crl=crl,
    )
