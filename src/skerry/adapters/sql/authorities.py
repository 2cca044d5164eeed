"""Hosts' intermediates as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema import authorities
from skerry.ports.authorities import Authorities, AuthorityRecord
from skerry.ports.host_identities import Audit


class SqlAuthorities(Authorities):
    """The part of the hub's store that is about intermediates."""

    _database: Database

    def authorities(self, site: str = "") -> Sequence[AuthorityRecord]:
        return self._database.read(lambda connection: load(connection, site))

    def add_authority(self, record: AuthorityRecord) -> None:
        self._database.write(lambda connection: add(connection, record))

    def forget_authorities(self, before: datetime) -> None:
        self._database.write(lambda connection: forget(connection, before))


def load(connection: sa.Connection, site: str) -> Sequence[AuthorityRecord]:
    """Return all intermediates, or those of a site."""
    query = sa.select(authorities).order_by(authorities.c.host, authorities.c.issued_at, authorities.c.serial)
    return rows.load_all(
        connection, query.where(authorities.c.site == site) if site else query, AuthorityRecord
    )


def add(connection: sa.Connection, record: AuthorityRecord) -> None:
    """Store an intermediate once."""
    if not rows.exists(connection, sa.select(authorities).where(authorities.c.serial == record.serial)):
        rows.add(connection, authorities, record)
        subject = f"host:{record.host}/authority:{record.serial}"
        why = f"for site {record.site}, until {record.not_after:%Y-%m-%dT%H:%M:%SZ}"
        add_audit(
            connection,
            Audit(at=record.issued_at, who="hub", action="pki.issue", subject=subject, why=why),
        )


def revoke(connection: sa.Connection, host: str, at: datetime) -> None:
    """Note that a host's intermediates are revoked; the first time counts."""
    found = (authorities.c.host == host) & authorities.c.revoked_at.is_(None)
    connection.execute(sa.update(authorities).where(found).values(revoked_at=at))


def forget(connection: sa.Connection, before: datetime) -> None:
    """Forget what has run out."""
    connection.execute(sa.delete(authorities).where(authorities.c.not_after < before))
