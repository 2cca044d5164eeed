"""Secrets as rows: versions with their wrapped keys, and who they were sealed to."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.operators import load_setting, put_setting
from skerry.adapters.sql.schema import secret_exposures, secret_versions
from skerry.kit.errors import Conflict, Missing
from skerry.ports.host_identities import Audit
from skerry.ports.key_encryption import Wrapped
from skerry.ports.secrets import ExposureRecord, SecretRecord, Secrets

_REVISION = "secrets_revision"
_expose = sqlite.insert(secret_exposures).on_conflict_do_nothing()


class SqlSecrets(Secrets):
    """The part of the hub's store that is about secrets."""

    _database: Database

    def secrets_revision(self) -> str:
        return (self._database.read(lambda connection: load_setting(connection, _REVISION)) or b"").decode()

    def secret_versions(self, name: str = "") -> Sequence[SecretRecord]:
        return self._database.read(lambda connection: load_versions(connection, name))

    def add_secret_version(self, record: SecretRecord, audit: Audit) -> None:
        self._database.write(lambda connection: add_version(connection, record, audit))

    def forget_secret_versions(self, versions: Collection[str]) -> None:
        if versions:
            self._database.write(lambda connection: forget_versions(connection, versions))

    def revoke_secret(self, name: str, version: int, at: datetime, audit: Audit) -> None:
        self._database.write(lambda connection: revoke(connection, (name, version), at, audit))

    def remove_secret(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: remove(connection, name, audit))

    def rewrap_secrets(self, wrapped: Mapping[str, Wrapped]) -> None:
        self._database.write(lambda connection: rewrap(connection, wrapped))

    def note_exposures(self, exposures: Sequence[ExposureRecord]) -> None:
        if exposures:
            self._database.write(lambda connection: note_exposures(connection, exposures))

    def exposures(self, host: str) -> Sequence[ExposureRecord]:
        return self._database.read(lambda connection: load_exposures(connection, host))

    def revoked_secrets(self, site: str, limit: int) -> Sequence[str]:
        return self._database.read(lambda connection: load_revoked(connection, site, limit))


def load_versions(connection: sa.Connection, name: str) -> Sequence[SecretRecord]:
    """Return all versions of a secret, or of all."""
    query = sa.select(secret_versions).order_by(secret_versions.c.name, secret_versions.c.version)
    if name:
        query = query.where(secret_versions.c.name == name)
    return rows.load_all(connection, query, SecretRecord)


def add_version(connection: sa.Connection, record: SecretRecord, audit: Audit) -> None:
    """Store a version if it is the next one."""
    newest = sa.select(sa.func.max(secret_versions.c.version)).where(secret_versions.c.name == record.name)
    if record.version != (connection.scalar(newest) or 0) + 1:
        message = f"secret {record.name} has a version {record.version} by now"
        raise Conflict("secret.moved", message, hint="look at its versions and try again")
    rows.add(connection, secret_versions, record)
    add_audit(connection, audit)
    _touch(connection)


def forget_versions(connection: sa.Connection, versions: Collection[str]) -> None:
    """Forget versions; who could read them stays known."""
    for version in versions:
        connection.execute(sa.delete(secret_versions).where(secret_versions.c.id == version))
    _touch(connection)


def revoke(connection: sa.Connection, which: tuple[str, int], at: datetime, audit: Audit) -> None:
    """Note that a version is revoked; the first time counts."""
    name, version = which
    found = (secret_versions.c.name == name) & (secret_versions.c.version == version)
    if not rows.exists(connection, sa.select(secret_versions.c.id).where(found)):
        raise missing(f"{name} {version}")
    fresh = found & secret_versions.c.revoked_at.is_(None)
    if rows.changed(connection, sa.update(secret_versions).where(fresh).values(revoked_at=at)):
        add_audit(connection, audit)
        _touch(connection)


def remove(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a secret; who could read it stays known."""
    if rows.changed(connection, sa.delete(secret_versions).where(secret_versions.c.name == name)) == 0:
        raise missing(name)
    add_audit(connection, audit)
    _touch(connection)


def rewrap(connection: sa.Connection, wrapped: Mapping[str, Wrapped]) -> None:
    """Replace wrapped keys."""
    for version, new in wrapped.items():
        values = msgspec.structs.asdict(new)
        connection.execute(sa.update(secret_versions).where(secret_versions.c.id == version).values(**values))
    _touch(connection)


def note_exposures(connection: sa.Connection, exposures: Sequence[ExposureRecord]) -> None:
    """Note what is sealed to whom, once."""
    connection.execute(_expose, [msgspec.structs.asdict(one) for one in exposures])


def load_exposures(connection: sa.Connection, host: str) -> Sequence[ExposureRecord]:
    """Return what was ever sealed to a host."""
    order = (secret_exposures.c.name, secret_exposures.c.version)
    query = sa.select(secret_exposures).where(secret_exposures.c.host == host).order_by(*order)
    return rows.load_all(connection, query, ExposureRecord)


def load_revoked(connection: sa.Connection, site: str, limit: int) -> Sequence[str]:
    """Return the ids of what is revoked and was sealed at a site."""
    query = (
        sa.select(secret_versions.c.id)
        .join(secret_exposures, secret_exposures.c.secret == secret_versions.c.id)
        .where((secret_exposures.c.site == site) & secret_versions.c.revoked_at.is_not(None))
        .distinct()
        .order_by(secret_versions.c.revoked_at.desc(), secret_versions.c.id)
        .limit(limit)
    )
    return sorted(str(row[0]) for row in connection.execute(query))


def missing(what: str) -> Missing:
    """Return the error for a secret or version that is not there."""
    return Missing("secret.missing", f"there is no secret {what}", hint="skerry secret list shows them")


def _touch(connection: sa.Connection) -> None:
    """Change the revision: drawn at random, it is none that was there before, nor one that another replica draws."""
    put_setting(connection, _REVISION, secrets.token_hex(16).encode())
