"""Secrets: the part of the hub's store that is about them. Rules as `skerry.ports.hub_store`; no value is in clear."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit
from skerry.ports.key_encryption import Wrapped
from skerry.spec.secret import Making, Scope, ScopeKind, SecretKind


class SecretRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a secret. `encrypted` opens with the key that `wrapped` becomes under the key `key_id`.

    Versions of a name count up over all its scopes. `length` is that of a random value; `public` the public half of a
    pair of keys. One `at_site` is made by hosts as `making` says, every `rotate_every_s` if that is stated; there is
    nothing of it here, and key and ciphertexts are empty.
    """

    id: str
    name: str
    version: int
    scope_kind: ScopeKind
    scope_of: str
    kind: SecretKind
    length: int
    public: str
    key_id: str
    wrapped: bytes
    encrypted: bytes
    created_at: datetime
    created_by: str
    not_before: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    making: Making | None = None
    at_site: bool = False
    rotate_every_s: int | None = None

    @property
    def scope(self) -> Scope:
        """Where the value holds."""
        return Scope(kind=self.scope_kind, of=self.scope_of)


class ExposureRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was sealed to a host, so that it could be read there; kept when host and secret have gone."""

    host: str
    secret: str
    site: str
    name: str
    version: int
    sealed_at: datetime


class Secrets(Protocol):
    """What the hub keeps of secrets."""

    def secrets_revision(self) -> str:
        """Return what differs from all it was before whenever a version was added, revoked, rewrapped or forgotten."""
        ...

    def secret_versions(self, name: str = "") -> Sequence[SecretRecord]:
        """Return all versions of a secret, or of all, by name and version."""
        ...

    def add_secret_version(self, record: SecretRecord, audit: Audit) -> None:
        """Store a version; `Conflict` unless it is the next one of its name (`secret.moved`)."""
        ...

    def forget_secret_versions(self, versions: Collection[str]) -> None:
        """Forget versions, by id, that nobody needs any more."""
        ...

    def revoke_secret(self, name: str, version: int, at: datetime, audit: Audit) -> None:
        """Note that a version must not be used any more, for good; `Missing` when there is none (`secret.missing`)."""
        ...

    def remove_secret(self, name: str, audit: Audit) -> None:
        """Forget a secret with all its versions; `Missing` when there is none (`secret.missing`)."""
        ...

    def rewrap_secrets(self, wrapped: Mapping[str, Wrapped]) -> None:
        """Replace the wrapped keys of these versions, by id, all or none."""
        ...

    def note_exposures(self, exposures: Sequence[ExposureRecord]) -> None:
        """Note which versions are sealed to whom from now on; what was noted before stays as it was."""
        ...

    def exposures(self, host: str) -> Sequence[ExposureRecord]:
        """Return what was ever sealed to a host, by name and version."""
        ...

    def revoked_secrets(self, site: str, limit: int) -> Sequence[str]:
        """Return the ids of versions that were sealed to hosts of a site and are revoked, the newest at most."""
        ...
