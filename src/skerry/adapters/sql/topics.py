"""Messages of hosts' buses as rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema_topics import topic_messages as messages
from skerry.adapters.sql.schema_topics import topic_sources as sources
from skerry.ports.topic_store import TopicRecord, TopicSource, TopicStore
from skerry.spec.uplink import TopicBatch
from skerry.telemetry.received import add_number

ROW_BYTES = 128
"""What a row takes besides its payload, roughly."""
TRIM_AT_ONCE = 5000
KEEP_SOURCES = timedelta(days=400)
"""For how much longer than messages it is known which batches came: a host may be away for long."""
LONGEST = 4_000_000_000.0


class SqlTopics(TopicStore):
    """The part of the hub's store that is about messages."""

    _database: Database

    def put_topic_batch(self, batch: TopicBatch, at: datetime) -> bool:
        return self._database.write(lambda connection: put_batch(connection, batch, at))

    def topic_messages(
        self,
        *,
        after: int,
        limit: int,
        sites: Collection[str] | None = None,
        since: datetime | None = None,
    ) -> Sequence[TopicRecord]:
        query = _of_sites(sa.select(messages).where(messages.c.id > after), sites)
        if since is not None:
            query = query.where(messages.c.received_at >= since)
        query = query.order_by(messages.c.id).limit(limit)
        return self._database.read(lambda connection: rows.load_all(connection, query, TopicRecord))

    def newest_topic_messages(
        self, limit: int, sites: Collection[str] | None = None
    ) -> Sequence[TopicRecord]:
        query = _of_sites(sa.select(messages), sites).order_by(messages.c.id.desc()).limit(limit)
        found = self._database.read(lambda connection: rows.load_all(connection, query, TopicRecord))
        return list(reversed(found))

    def topic_sources(self) -> Sequence[TopicSource]:
        query = sa.select(sources).order_by(sources.c.host, sources.c.stream)
        return self._database.read(lambda connection: rows.load_all(connection, query, TopicSource))

    def trim_topics(self, *, before: datetime, most_bytes: int) -> int:
        size = sa.func.coalesce(sa.func.sum(sa.func.length(messages.c.payload) + ROW_BYTES), 0)
        query = sa.select(size)
        used = int(self._database.read(lambda connection: connection.execute(query).scalar_one()))
        gone = 0
        while True:
            # In steps, so that reports do not wait long for the one writer.
            too_much = used - most_bytes
            some, freed = self._database.write(partial(trim, before=before, too_much=too_much))
            if not some:
                return gone
            gone, used = gone + some, used - freed


def _of_sites(
    query: sa.Select[tuple[object, ...]], sites: Collection[str] | None
) -> sa.Select[tuple[object, ...]]:
    return query if sites is None else query.where(messages.c.site.in_(sites))


def put_batch(connection: sa.Connection, batch: TopicBatch, at: datetime) -> bool:
    """Store a batch once: what came and which came is one step."""
    own = (sources.c.host == batch.host) & (sources.c.stream == batch.stream)
    before = rows.load_one(connection, sa.select(sources).where(own), TopicSource)
    received, fresh = add_number(before.received if before else (), batch.batch)
    if not fresh:
        return False
    is_newest = batch.batch >= received[-1][1]
    told = TopicSource(
        host=batch.host,
        stream=batch.stream,
        site=batch.site,
        received=received,
        dropped=batch.dropped if is_newest or before is None else before.dropped,
        waiting=batch.waiting if is_newest or before is None else before.waiting,
        received_at=at,
    )
    connection.execute(sa.delete(sources).where(own))
    rows.add(connection, sources, told)
    values = [
        {
            "site": batch.site,
            "host": batch.host,
            "application": one.application,
            "topic": one.topic,
            "at": _instant(one.at, at),
            "received_at": at,
            "payload": one.payload,
            "count": one.count,
            "stream": batch.stream,
            "number": one.number,
        }
        for one in batch.messages
    ]
    if values:
        connection.execute(sa.insert(messages), values)
    return True


def trim(connection: sa.Connection, *, before: datetime, too_much: int) -> tuple[int, int]:
    """Forget some of what is too old, or `too_much` in bytes; return how many messages went, and their bytes."""
    connection.execute(sa.delete(sources).where(sources.c.received_at < before - KEEP_SOURCES))
    query = sa.select(messages.c.id, messages.c.received_at, sa.func.length(messages.c.payload))
    newest = gone = freed = 0
    for number, received_at, length in connection.execute(
        query.order_by(messages.c.id).limit(TRIM_AT_ONCE)
    ).all():
        if received_at >= before and freed >= too_much:
            break
        newest, gone, freed = number, gone + 1, freed + length + ROW_BYTES
    if gone:
        connection.execute(sa.delete(messages).where(messages.c.id <= newest))
    return gone, freed


def _instant(seconds: float, received_at: datetime) -> datetime:
    """Return when a message came to its host; when that cannot be, when it came here."""
    if not 0 <= seconds <= LONGEST:
        return received_at
    return datetime.fromtimestamp(seconds, UTC)
