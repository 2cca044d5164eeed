"""SqliteTopicQueue: messages of a host's bus on their way up, in one SQLite file of its own. Standard library only.

It is apart from what the agent must not lose: where it is damaged it is set aside, and another begins under another
name. A batch that was begun is never given up for others, so that it stays what it was when it comes again.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from skerry.adapters.sqlite_documents import DOCUMENTS, SqliteDocuments
from skerry.adapters.sqlite_opening import open_database
from skerry.ports.topic_queue import Dropped, KeptBatch, NewTopicMessage, WindowName
from skerry.spec.uplink import (
    MAX_BATCH_BYTES,
    MAX_DROP_ROWS,
    MAX_MESSAGES_PER_BATCH,
    TopicDrop,
    TopicMessage,
)
from skerry.telemetry.reducing import PRIORITIES, Waiting, Window, rank_of

MOST_BYTES = 64 << 20
ROW_BYTES = 128
"""What a row takes besides its payload, roughly."""

_schema = (
    DOCUMENTS,
    (
        "CREATE TABLE messages (number INTEGER PRIMARY KEY AUTOINCREMENT, application TEXT NOT NULL, "
        "topic TEXT NOT NULL, pattern TEXT NOT NULL, at REAL NOT NULL, payload BLOB NOT NULL, "
        "count INTEGER NOT NULL, "
        "rank INTEGER NOT NULL, size INTEGER NOT NULL, batch INTEGER NOT NULL DEFAULT 0)"
    ),
    "CREATE INDEX messages_of_batch ON messages (batch, rank, number)",
    "CREATE TABLE windows (name BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE drops (application TEXT, pattern TEXT, why TEXT, count INTEGER NOT NULL, "
        "PRIMARY KEY (application, pattern, why)) WITHOUT ROWID"
    ),
    "CREATE TABLE marks (name BLOB PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE batches (number INTEGER PRIMARY KEY AUTOINCREMENT)",
    "PRAGMA user_version = 1",
)
_put = (
    "INSERT INTO messages (application, topic, pattern, at, payload, count, rank, size) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_drop = (
    "INSERT INTO drops VALUES (?, ?, ?, ?) ON CONFLICT (application, pattern, why) "
    "DO UPDATE SET count = count + excluded.count"
)
_least = (
    "SELECT number, application, pattern, size, count FROM messages WHERE batch = 0 "
    "ORDER BY rank, number LIMIT 100"
)
_urgent = "SELECT number, size FROM messages WHERE batch = 0 ORDER BY rank DESC, number LIMIT ?"
_of_batch = (
    "SELECT number, application, topic, at, payload, count FROM messages WHERE batch = ? ORDER BY number"
)
_waiting = "SELECT rank, count(*), sum(size), min(at) FROM messages GROUP BY rank"

_dropped = (
    "SELECT application, pattern, why, count FROM drops "
    "ORDER BY count DESC, application, pattern, why LIMIT ?"
)


class SqliteTopicQueue(SqliteDocuments):
    """A `TopicQueue`."""

    _stream = ""
    _most_bytes = MOST_BYTES

    @classmethod
    def open(cls, path: Path, *, most_bytes: int = MOST_BYTES, patience_s: float = 10.0) -> SqliteTopicQueue:
        """Open or create the queue; a damaged one is set aside.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        connection, _ = open_database(path, (_schema,), patience_s=patience_s)
        opened = cls(connection, str(path))
        held = opened.load("stream")
        if held is None:
            held = secrets.token_hex(8).encode()
            opened.save({"stream": held})
        opened._stream, opened._most_bytes = held.decode(), most_bytes
        return opened

    @property
    def stream(self) -> str:
        """See `TopicQueue.stream`."""
        return self._stream

    def put(
        self,
        messages: Sequence[NewTopicMessage],
        *,
        windows: Mapping[WindowName, Window | None] = {},
        drops: Mapping[Dropped, int] = {},
        marks: Mapping[bytes, float] = {},
        unmark: Sequence[bytes] = (),
    ) -> None:
        """See `TopicQueue.put`."""
        with self._changing() as connection:
            connection.executemany(_put, [_row(one) for one in messages])
            for name, window in windows.items():
                key = msgspec.msgpack.encode(name)
                if window is None:
                    connection.execute("DELETE FROM windows WHERE name = ?", (key,))
                else:
                    content = msgspec.msgpack.encode(window)
                    connection.execute("INSERT OR REPLACE INTO windows VALUES (?, ?)", (key, content))
            _count(connection, drops)
            connection.executemany("DELETE FROM marks WHERE name = ?", [(one,) for one in unmark])
            connection.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", list(marks.items()))
            if messages:
                _make_room(connection, self._most_bytes)

    def windows(self) -> Mapping[WindowName, Window]:
        """See `TopicQueue.windows`."""
        with self._reading() as connection:
            rows = connection.execute("SELECT name, content FROM windows").fetchall()
        decode = msgspec.msgpack.decode
        return {decode(name, type=WindowName): decode(content, type=Window) for name, content in rows}

    def marks(self) -> Mapping[bytes, float]:
        """See `TopicQueue.marks`."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT name, at FROM marks").fetchall())

    def waiting(self) -> Sequence[Waiting]:
        """See `TopicQueue.waiting`."""
        with self._reading() as connection:
            rows = connection.execute(_waiting).fetchall()
        return [Waiting(PRIORITIES[int(rank)], count, size, at) for rank, count, size, at in rows]

    def next_batch(self) -> KeptBatch | None:
        """See `TopicQueue.next_batch`."""
        with self._changing() as connection:
            row = connection.execute("SELECT min(batch) FROM messages WHERE batch > 0").fetchone()
            number = row[0] if row[0] is not None else _begin_batch(connection)
            found = connection.execute(_of_batch, (number,)).fetchall() if number else []
        if not found:
            return None
        messages = tuple(
            TopicMessage(number=own, application=app, topic=topic, at=at, payload=payload, count=count)
            for own, app, topic, at, payload, count in found
        )
        return KeptBatch(number=number, messages=messages)

    def forget(self, batch: int) -> None:
        """See `TopicQueue.forget`."""
        with self._changing() as connection:
            connection.execute("DELETE FROM messages WHERE batch = ? AND batch > 0", (batch,))

    def dropped(self) -> Sequence[TopicDrop]:
        """See `TopicQueue.dropped`."""
        with self._reading() as connection:
            rows = connection.execute(_dropped, (MAX_DROP_ROWS,)).fetchall()
        return [
            TopicDrop(application=app, topic=topic, why=why, count=count) for app, topic, why, count in rows
        ]


def _row(one: NewTopicMessage) -> tuple[object, ...]:
    size = len(one.payload) + ROW_BYTES
    rank = rank_of(one.priority)
    return (one.application, one.topic, one.pattern, one.at, one.payload, one.count, rank, size)


def _count(connection: sqlite3.Connection, drops: Mapping[Dropped, int]) -> None:
    rows = [(one.application, one.pattern, one.why, count) for one, count in drops.items()]
    connection.executemany(_drop, rows)


def _make_room(connection: sqlite3.Connection, most_bytes: int) -> None:
    used = int(connection.execute("SELECT coalesce(sum(size), 0) FROM messages").fetchone()[0])
    while used > most_bytes and (rows := connection.execute(_least).fetchall()):
        for number, application, pattern, size, count in rows:
            if used <= most_bytes:
                break
            connection.execute("DELETE FROM messages WHERE number = ?", (number,))
            _count(connection, {Dropped(application, pattern, "no room"): count})
            used -= size


def _begin_batch(connection: sqlite3.Connection) -> int:
    """Return the number of a new batch with the most urgent messages; 0 when nothing waits."""
    chosen: list[int] = []
    size = 0
    for number, of in connection.execute(_urgent, (MAX_MESSAGES_PER_BATCH,)).fetchall():
        if chosen and size + of > MAX_BATCH_BYTES:
            break
        chosen.append(number)
        size += of
    if not chosen:
        return 0
    batch = int(connection.execute("INSERT INTO batches DEFAULT VALUES RETURNING number").fetchone()[0])
    # The numbering outlives its rows (AUTOINCREMENT), so one row is enough.
    connection.execute("DELETE FROM batches WHERE number < ?", (batch,))
    connection.executemany("UPDATE messages SET batch = ? WHERE number = ?", [(batch, one) for one in chosen])
    return batch
