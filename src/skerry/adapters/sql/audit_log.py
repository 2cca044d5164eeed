"""The audit as rows: each entry names the digest of the one before, and the newest is known by number and digest.

The newest is read and moved in the transaction that adds an entry, so that a crash between any two steps leaves a
whole chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema import audits, chains, events
from skerry.ports.audit_log import AuditLog, AuditRecord, EventRecord
from skerry.ports.host_identities import Audit
from skerry.spec.audit import TRIMMED, AuditEntry
from skerry.trust.chain import ChainHead, digest_entry, trimmed_subject

AUDIT_CHAIN = "audit"
SLACK = 10
"""A part of the entries to be kept that may be too many, so that not every trimming adds an entry that is too many."""


def events_chain(host: str) -> str:
    """Return the name of the chain of a host's events."""
    return f"host:{host}"


class SqlAuditLog(AuditLog):
    """The part of the hub's store that is about the audit."""

    _database: Database

    def add_audit(self, audit: Audit) -> None:
        self._database.write(lambda connection: add_audit(connection, audit))

    def audits(self, limit: int) -> Sequence[AuditRecord]:
        query = sa.select(audits).order_by(audits.c.id.desc()).limit(limit)
        return self._database.read(lambda connection: rows.load_all(connection, query, AuditRecord))

    def audit_entries(self, after: int, limit: int) -> Sequence[AuditEntry]:
        return [_entry(record) for record in self.audits_after(after, limit)]

    def audit_head(self) -> ChainHead:
        return self._database.read(lambda connection: load_head(connection, AUDIT_CHAIN))

    def audits_after(self, after: int, limit: int) -> Sequence[AuditRecord]:
        query = sa.select(audits).where(audits.c.id > after).order_by(audits.c.id).limit(limit)
        return self._database.read(lambda connection: rows.load_all(connection, query, AuditRecord))

    def events_after(self, after: int, limit: int) -> Sequence[EventRecord]:
        query = sa.select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        return self._database.read(lambda connection: rows.load_all(connection, query, EventRecord))

    def log_position(self, since: datetime) -> tuple[int, int]:
        return self._database.read(
            lambda connection: (
                _before(connection, events, events.c.received_at >= since),
                _before(connection, audits, audits.c.at >= since),
            )
        )

    def trim(self, *, keep_events: int, keep_audits: int) -> None:
        self._database.write(lambda connection: trim(connection, keep_events, keep_audits))


def add_audit(connection: sa.Connection, audit: Audit) -> None:
    """Write an audit entry at the end of the chain."""
    head = load_head(connection, AUDIT_CHAIN)
    record = AuditRecord(id=head.number + 1, previous=head.digest, **msgspec.structs.asdict(audit))
    rows.add(connection, audits, record)
    put_head(connection, AUDIT_CHAIN, ChainHead(record.id, digest_entry(_entry(record))))


def load_head(connection: sa.Connection, chain: str) -> ChainHead:
    """Return the newest entry of a chain."""
    found = connection.execute(
        sa.select(chains.c.number, chains.c.digest).where(chains.c.name == chain)
    ).first()
    return ChainHead(int(found[0]), str(found[1])) if found is not None else ChainHead()


def put_head(connection: sa.Connection, chain: str, head: ChainHead) -> None:
    """Note the newest entry of a chain."""
    values = {"number": head.number, "digest": head.digest}
    if rows.changed(connection, sa.update(chains).where(chains.c.name == chain).values(**values)) == 0:
        connection.execute(sa.insert(chains), {"name": chain, **values})


def trim(connection: sa.Connection, keep_events: int, keep_audits: int) -> None:
    """Forget all but the newest events and audit entries."""
    newest_to_go = sa.select(events.c.id).order_by(events.c.id.desc()).offset(keep_events).limit(1)
    connection.execute(sa.delete(events).where(events.c.id <= newest_to_go.scalar_subquery()))
    allowed = keep_audits + keep_audits // SLACK
    if rows.exists(connection, sa.select(audits.c.id).order_by(audits.c.id.desc()).offset(allowed)):
        _forget_audits(connection, keep_audits)


def _forget_audits(connection: sa.Connection, keep: int) -> None:
    """Forget the oldest entries, and say so in one that takes the place of the newest of them among those kept."""
    newest = rows.load_one(connection, sa.select(audits).order_by(audits.c.id.desc()), AuditRecord)
    query = sa.select(audits).order_by(audits.c.id.desc()).offset(max(0, keep - 1))
    last = rows.load_one(connection, query, AuditRecord)
    assert newest is not None and last is not None
    gone = ChainHead(last.id, digest_entry(_entry(last)))
    connection.execute(sa.delete(audits).where(audits.c.id <= last.id))
    subject, why = trimmed_subject(gone), f"{keep} entries are kept"
    add_audit(connection, Audit(at=newest.at, who="hub", action=TRIMMED, subject=subject, why=why))


def _before(connection: sa.Connection, table: sa.Table, recent: sa.ColumnElement[bool]) -> int:
    """Return the number before the first recent row; where there is none, that of the newest row."""
    first = connection.execute(sa.select(sa.func.min(table.c.id)).where(recent)).scalar_one()
    if first is not None:
        return int(first) - 1
    return int(connection.execute(sa.select(sa.func.max(table.c.id))).scalar_one() or 0)


def _entry(record: AuditRecord) -> AuditEntry:
    values = msgspec.structs.asdict(record)
    return AuditEntry(number=values.pop("id"), **values)
