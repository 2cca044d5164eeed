"""The hub's secrets: takes values in, encrypts them, and says which version a site gets and why.

Rules: a value is in clear in memory alone, while it is stored or sealed. Each version is encrypted under a key of its
own, which `KeyEncryption` wraps. What is revoked is never given again. Synchronous; call it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache

import msgspec

from skerry.hub.secret_cache import SecretCache
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.kit.ids import is_name
from skerry.kit.quantities import parse_duration
from skerry.matching.bindings import secrets_joined
from skerry.matching.secrets import ScopeChoice, choose_scope, find_ties, parse_scope, scope_text
from skerry.ports.clock import Clock
from skerry.ports.hub_store import Audit, HubStore, SiteRecord
from skerry.ports.key_encryption import KeyEncryption, Wrapped
from skerry.ports.secrets import SecretRecord
from skerry.spec.api_secret import SecretRequest
from skerry.spec.binding import BindingNeed
from skerry.spec.release import Release
from skerry.spec.secret import MAX_ROTATE_S, MAX_VALUE_BYTES, MIN_ROTATE_S, Scope
from skerry.spec.site import Site
from skerry.trust.sealing import decrypt_with, encrypt_value
from skerry.trust.secret_making import MadeValue, make_value

CLOCKS_APART = timedelta(days=1)
"""How long after a version's time the one before it is still given: hosts' clocks may be behind."""
MAX_NEXT = 8
MAX_VERSIONS = 50_000
KEPT_BEHIND = 20
"""So many versions of a scope behind the one in use are kept, to be looked at and revoked."""

Labels = Mapping[str, Mapping[str, str]]


class Offer(msgspec.Struct, frozen=True):
    """What a site gets of a secret: all of `given`, of which `current` is what it uses by the hub's clock."""

    choice: ScopeChoice
    current: SecretRecord | None = None
    given: tuple[SecretRecord, ...] = ()


class SecretKeeper:
    """Usable from any number of threads."""

    def __init__(self, store: HubStore, keys: KeyEncryption, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._uses: dict[str, frozenset[str]] = {}
        self._cache = SecretCache(store)
        self._needs: dict[str, Sequence[BindingNeed]] = {}

    def prepare(self, name: str, asked: SecretRequest, who: str) -> SecretRecord:
        """Return the next version of a secret, encrypted and not stored yet.

        Raises:
            Rejected: what is asked is no value, no scope, or never holds; or it is not clear at some site which of
                two values is meant (`secret.tied`).
        """
        if not is_name(name):
            raise Rejected(
                "secret.name", f"not a name: {name[:80]!r}", hint="lower-case letters, digits, hyphens"
            )
        versions = self._store.secret_versions(name)
        if len(versions) >= MAX_VERSIONS:
            raise Conflict(
                "secret.full", f"secret {name} has {len(versions)} versions", hint="delete it and begin anew"
            )
        scope = parse_scope(site=asked.site, selector=asked.selector)
        if scope.kind == "site" and self._store.site(scope.of) is None:
            raise Missing("site.missing", f"there is no site {scope.of}", hint="skerry get sites lists them")
        now = self._clock.now()
        _check_times(asked, now)
        self._refuse_ties(name, versions, scope)
        drawn, newest = secrets.token_hex(16), max((one.version for one in versions), default=0)
        record = SecretRecord(
            id=drawn,
            name=name,
            version=newest + 1,
            scope_kind=scope.kind,
            scope_of=scope.of,
            kind=asked.generate.kind if asked.generate is not None else "set",
            length=asked.generate.length if asked.generate and asked.generate.kind == "random" else 0,
            public="",
            key_id="",
            wrapped=b"",
            encrypted=b"",
            created_at=now,
            created_by=who,
            not_before=asked.not_before,
            expires_at=asked.expires_at,
            making=asked.generate,
        )
        every = check_making(asked)
        if asked.at_site:
            return msgspec.structs.replace(record, at_site=True, rotate_every_s=every)
        return self._encrypted(record, _value_of(asked))

    def value(self, record: SecretRecord) -> bytes:
        """Return a value in clear, to be sealed at once.

        Raises:
            Unavailable: the key that opens it cannot be reached. Untrusted: the database was altered.
        """
        key = self._keys.unwrap(Wrapped(record.key_id, record.wrapped), key_context(record.id))
        return decrypt_with(key, record.encrypted, value_context(record.id))

    def offer(self, versions: Sequence[SecretRecord], site: SiteRecord) -> Offer:
        """Return what a site gets of a secret with these versions."""
        labels = labels_of(site)
        return self._offer(versions, site.name, lambda scopes: choose_scope(scopes, site.name, labels))

    def offers(self, names: Collection[str], site: SiteRecord) -> dict[str, Offer]:
        """Return what a site gets of several secrets, by name."""
        labels = labels_of(site)

        @cache  # most secrets have values for the same scopes
        def choose(scopes: frozenset[Scope]) -> ScopeChoice:
            return choose_scope(scopes, site.name, labels)

        found = self._cache.versions(names, site.name)
        return {name: self._offer(versions, site.name, choose) for name, versions in found.items()}

    def known(self, names: Collection[str], site: str) -> dict[str, Sequence[SecretRecord]]:
        """Return the versions of several secrets, by name, without those that are for another site alone."""
        return self._cache.versions(names, site)

    def outlived(self, versions: Sequence[SecretRecord], scope: Scope) -> list[str]:
        """Return the ids of versions of a scope that so many later ones have left behind that nobody asks for them."""
        now = self._clock.now()
        own = [one for one in versions if one.scope == scope]
        current = max((n for n, one in enumerate(own) if _holds(one, now)), default=0)
        return [one.id for one in own[: max(0, current - KEPT_BEHIND)]]

    def uses(self, release: str) -> frozenset[str]:
        """Return the secrets that a release uses; a release never changes."""
        if release not in self._uses:
            record = self._store.release(release)
            if record is None:
                return frozenset()
            self._uses[release] = secrets_of(msgspec.json.decode(record.document, type=Release))
        return self._uses[release]

    def used_at(self, name: str) -> dict[str, set[str]]:
        """Return the assigned releases that use a secret, by site."""
        found: dict[str, set[str]] = {}
        for one in self._store.assignments():
            if name in self.uses(one.release) or name in self._joined(one.release, one.site):
                found.setdefault(one.site, set()).add(one.release)
        return found

    def _joined(self, release: str, site: str) -> frozenset[str]:
        """Return the secrets of the bindings that a release is joined to at a site."""
        if release not in self._needs:
            record = self._store.release(release)
            if record is None:
                return frozenset()
            self._needs[release] = msgspec.json.decode(record.document, type=Release).application.spec.needs
        stored = self._store.site(site) if self._needs[release] else None
        if stored is None:
            return frozenset()
        return secrets_at(self._needs[release], stored, [host.name for host in self._store.hosts(site)])

    def reached(self, name: str, versions: Sequence[SecretRecord], scope: Scope) -> list[str]:
        """Return the sites that use a secret and get its values of a scope."""
        sites = {site.name: site for site in self._store.sites()}
        used = (sites[name] for name in sorted(self.used_at(name)) if name in sites)
        return [site.name for site in used if self.offer(versions, site).choice.scope == scope]

    def lacking(self, needed: Iterable[str], sites: Iterable[SiteRecord]) -> dict[str, list[str]]:
        """Return which of these secrets have no value now at which of these sites."""
        found: dict[str, list[str]] = {}
        there = list(sites)
        for name in sorted(needed):
            versions = self._store.secret_versions(name)
            lack = [site.name for site in there if self.offer(versions, site).current is None]
            if lack:
                found[name] = lack
        return found

    def ties(self, labels: Labels) -> dict[str, list[str]]:
        """Return, by secret, the sites with these labels for which two values are meant alike."""
        by_name: dict[str, list[Scope]] = {}
        for one in self._store.secret_versions():
            if one.revoked_at is None:
                by_name.setdefault(one.name, []).append(one.scope)
        tied = {name: sorted(find_ties(scopes, labels)) for name, scopes in by_name.items()}
        return {name: sites for name, sites in tied.items() if sites}

    def _encrypted(self, record: SecretRecord, made: MadeValue) -> SecretRecord:
        key, encrypted = encrypt_value(made.value, value_context(record.id))
        wrapped = self._keys.wrap(key, key_context(record.id))
        return msgspec.structs.replace(
            record,
            public=made.public,
            key_id=wrapped.key_id,
            wrapped=wrapped.wrapped,
            encrypted=encrypted,
        )

    def _offer(
        self, versions: Sequence[SecretRecord], site: str, choose: Callable[[frozenset[Scope]], ScopeChoice]
    ) -> Offer:
        mine = (one for one in versions if one.scope_kind != "site" or one.scope_of == site)
        live = [one for one in mine if one.revoked_at is None]
        choice = choose(frozenset(one.scope for one in live))
        if choice.scope is None:
            return Offer(choice)
        now = self._clock.now()
        own = [one for one in live if one.scope == choice.scope]
        started = [one for one in own if _holds(one, now)]
        later = [
            one for one in own if one not in started and one.version > (started[-1].version if started else 0)
        ]
        given = [*_still_given(started, now), *later[:MAX_NEXT]]
        return Offer(choice, started[-1] if started else None, tuple(given))

    def _refuse_ties(self, name: str, versions: Sequence[SecretRecord], scope: Scope) -> None:
        if scope.kind != "selector":
            return
        scopes = [*{one.scope for one in versions if one.revoked_at is None}, scope]
        labels = {site.name: labels_of(site) for site in self._store.sites()}
        tied = {site: found for site, found in find_ties(scopes, labels).items() if scope in found}
        if tied:
            others = {scope_text(one) for found in tied.values() for one in found if one != scope}
            told = ", ".join(list(tied)[:20]) + (f" and {len(tied) - 20} more" if len(tied) > 20 else "")
            message = f"{name}: {scope_text(scope)} and {', '.join(sorted(others))} match alike at {told}"
            raise Rejected(
                "secret.tied", message, hint="give one selector another term, or set it for the site"
            )


def secrets_of(release: Release) -> frozenset[str]:
    """Return the names of the secrets that a release's components and routes use."""
    spec = release.application.spec
    tokens = (route.auth.token for route in spec.ingress)
    return frozenset(use.name for one in spec.components for use in one.secrets) | frozenset(
        filter(None, tokens)
    )


def secrets_at(needs: Sequence[BindingNeed], site: SiteRecord, hosts: Sequence[str]) -> frozenset[str]:
    """Return the names of the secrets of what an application is joined to at a site, on any of these hosts."""
    offered = msgspec.json.decode(site.document, type=Site).spec.bindings
    return frozenset[str]().union(*(secrets_joined(needs, offered, host=host) for host in (hosts or (None,))))


def labels_of(site: SiteRecord) -> Mapping[str, str]:
    """Return a site's labels."""
    return msgspec.json.decode(site.document, type=Site).metadata.labels


def key_context(version: str) -> bytes:
    """Return what the wrapped key of a version, named by its id, is bound to."""
    return b"key of secret " + version.encode()


def value_context(version: str) -> bytes:
    """Return what the encrypted value of a version, named by its id, is bound to."""
    return b"value of secret " + version.encode()


def _holds(record: SecretRecord, now: datetime) -> bool:
    """Tell whether a version's time has come and it is not revoked."""
    return record.revoked_at is None and (record.not_before is None or record.not_before <= now)


def _still_given(started: Sequence[SecretRecord], now: datetime) -> Sequence[SecretRecord]:
    """Return the current version, with the one before it while a host's clock may say that it holds."""
    if not started:
        return ()
    begun = started[-1].not_before
    return started[-2:] if begun is not None and now - begun < CLOCKS_APART else started[-1:]


def _check_times(asked: SecretRequest, now: datetime) -> None:
    if asked.expires_at is not None and asked.expires_at <= max(now, asked.not_before or now):
        raise Rejected("secret.times", "it would have expired before it begins", hint="look at its expiry")


def check_making(asked: SecretRequest) -> int | None:
    """Return the period, in seconds, after which hosts make the next value, None when they make one.

    Raises:
        Rejected: what is asked is for a value that is made at the site, and this one is not; or the period is none.
    """
    if asked.at_site and (asked.generate is None or asked.value is not None):
        raise Rejected("secret.no_value", "a value at the site is generated there, and not given")
    if asked.rotate_every is None:
        return None
    if not asked.at_site:
        hint = "rotate it with skerry secret rotate, or have it made at the site"
        raise Rejected("secret.period", "the hub rotates nothing by itself", hint=hint)
    if asked.expires_at is not None:
        raise Rejected("secret.period", "each value ends with its period", hint="leave the expiry out")
    every = round(parse_duration(asked.rotate_every))
    if not MIN_ROTATE_S <= every <= MAX_ROTATE_S:
        raise Rejected("secret.period", f"a period is 1m to {MAX_ROTATE_S // 86400}d: {asked.rotate_every}")
    return every


def _value_of(asked: SecretRequest) -> MadeValue:
    if (asked.value is None) == (asked.generate is None):
        raise Rejected("secret.no_value", "a value is needed, or how to generate it, and not both")
    if asked.generate is not None:
        return make_value(asked.generate)
    try:
        value = base64.b64decode(asked.value or "", validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("secret.no_value", "the value is not base64") from None
    if not 0 < len(value) <= MAX_VALUE_BYTES:
        raise Rejected("secret.size", f"a value has 1 to {MAX_VALUE_BYTES} bytes, and not {len(value)}")
    return MadeValue(value)


def audit_of_version(record: SecretRecord, action: str) -> Audit:
    """Return the audit entry of a version: which, for whom, and never what."""
    return Audit(
        at=record.created_at,
        who=record.created_by,
        action=action,
        subject=f"secret:{record.name}@{record.version}",
        outcome=f"for {scope_text(record.scope)}",
    )
