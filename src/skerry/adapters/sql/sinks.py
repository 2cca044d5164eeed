"""Sinks as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema_sinks import sinks
from skerry.adapters.sql.schema_topics import topic_messages as messages
from skerry.kit.errors import Missing
from skerry.ports.host_identities import Audit
from skerry.ports.sink_store import SinkRecord, SinkStep, SinkStore

# Where SQLite keeps the highest id of a table with AUTOINCREMENT, also of rows that are gone.
_newest = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'topic_messages'")


class SqlSinks(SinkStore):
    """The part of the hub's store that is about sinks."""

    _database: Database

    def sinks(self) -> Sequence[SinkRecord]:
        query = sa.select(sinks).order_by(sinks.c.name)
        return self._database.read(lambda connection: rows.load_all(connection, query, SinkRecord))

    def remove_sink(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: _remove(connection, name, audit))

    def hold_sink(self, name: str, holder: str, *, now: datetime, until: datetime) -> SinkRecord | None:
        latest = until + (until - now)
        there = sinks.c
        over = there.held_until.is_(None) | (there.held_until <= now) | (there.held_until > latest)
        hold = sa.update(sinks).where(there.name == name, (there.holder == holder) | over)

        def take(connection: sa.Connection) -> SinkRecord | None:
            if rows.changed(connection, hold.values(holder=holder, held_until=until)) == 0:
                return None
            return rows.load_one(connection, sa.select(sinks).where(there.name == name), SinkRecord)

        return self._database.write(take)

    def advance_sink(self, name: str, holder: str, step: SinkStep) -> bool:
        there = sinks.c
        here = (there.name == name) & (there.holder == holder) & (there.position == step.before)
        values: dict[str, object] = {"position": step.position, "lost": there.lost + step.lost, "trouble": ""}
        if step.delivered_at is not None:
            values["delivered_at"] = step.delivered_at
        move = sa.update(sinks).where(here).values(values)
        return self._database.write(lambda connection: rows.changed(connection, move) == 1)

    def note_sink_trouble(self, name: str, holder: str, trouble: str) -> None:
        mine = (sinks.c.name == name) & (sinks.c.holder == holder)
        note = sa.update(sinks).where(mine).values(trouble=trouble)
        self._database.write(lambda connection: rows.changed(connection, note))

    def newest_topic_id(self) -> int:
        return self._database.read(_newest_id)

    def waiting_topics(self, after: int) -> Mapping[tuple[str, str], int]:
        grouped = (messages.c.site, messages.c.topic)
        query = sa.select(*grouped, sa.func.count()).where(messages.c.id > after).group_by(*grouped)
        found = self._database.read(lambda connection: connection.execute(query).all())
        return {(site, topic): count for site, topic, count in found}


def put_sinks(connection: sa.Connection, new: Sequence[SinkRecord]) -> None:
    """Store sinks: a new one begins behind the newest message, one that is there stays where it is."""
    for one in new:
        written = {"document": one.document, "changed_at": one.changed_at, "changed_by": one.changed_by}
        change = sa.update(sinks).where(sinks.c.name == one.name).values(written)
        if rows.changed(connection, change) == 0:
            values = {field: getattr(one, field) for field in one.__struct_fields__}
            connection.execute(sa.insert(sinks), values | {"position": _newest_id(connection)})


def _newest_id(connection: sa.Connection) -> int:
    return int(connection.execute(_newest).scalar_one_or_none() or 0)


def _remove(connection: sa.Connection, name: str, audit: Audit) -> None:
    if rows.changed(connection, sa.delete(sinks).where(sinks.c.name == name)) == 0:
        raise Missing("sink.unknown", f"there is no sink {name}")
    add_audit(connection, audit)
