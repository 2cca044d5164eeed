"""SqliteLogRing: lines in one SQLite file of its own, compressed by chunk. Standard library only.

It is apart from what the agent must not lose: where it is damaged it is set aside, and another begins.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from skerry.adapters.sqlite_documents import DOCUMENTS, SqliteDocuments
from skerry.adapters.sqlite_opening import open_database
from skerry.kit.canonical import UNREADABLE
from skerry.ports.log_ring import LogRing
from skerry.spec.logs import LogRecord

MOST_BYTES = 48 << 20
MOST_SOURCE_BYTES = 16 << 20
KEEP = timedelta(days=7)
ROW_BYTES = 96
"""What a row takes besides its content, roughly."""

_log = structlog.get_logger()
_schema = (
    DOCUMENTS,
    (
        "CREATE TABLE chunks (id INTEGER PRIMARY KEY, application TEXT NOT NULL, source TEXT NOT NULL, "
        "first REAL NOT NULL, last REAL NOT NULL, size INTEGER NOT NULL, content BLOB NOT NULL)"
    ),
    "CREATE INDEX chunks_of ON chunks (application, last)",
    "CREATE TABLE marks (source TEXT PRIMARY KEY, mark TEXT NOT NULL) WITHOUT ROWID",
    "PRAGMA user_version = 1",
)
_put = "INSERT INTO chunks (application, source, first, last, size, content) VALUES (?, ?, ?, ?, ?, ?)"
_names = "SELECT id FROM chunks WHERE application = ? AND last >= ? AND first < ? ORDER BY last DESC, id DESC"
_decoder = msgspec.msgpack.Decoder(tuple[LogRecord, ...])


class SqliteLogRing(SqliteDocuments, LogRing):
    """A `LogRing`; `now` says which lines are too old."""

    def __init__(self, connection: sqlite3.Connection, place: str, *, now: Callable[[], datetime]) -> None:
        super().__init__(connection, place)
        self._now = now
        self.most_bytes = MOST_BYTES
        self.most_source_bytes = MOST_SOURCE_BYTES

    @classmethod
    def open(cls, path: Path, now: Callable[[], datetime], *, patience_s: float = 10.0) -> SqliteLogRing:
        """Open or create the ring; a damaged one is set aside.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        connection, _ = open_database(path, (_schema,), patience_s=patience_s)
        return cls(connection, str(path), now=now)

    def add(self, source: str, records: Sequence[LogRecord], *, mark: str) -> None:
        rows: list[tuple[object, ...]] = []
        if records:
            content = zlib.compress(msgspec.msgpack.encode(records), 6)
            times = [record.at.timestamp() for record in records]
            size = len(content) + ROW_BYTES
            rows = [(records[0].application, source, min(times), max(times), size, content)]
        with self._changing() as connection:
            connection.executemany(_put, rows)
            if mark:
                connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (source, mark))
            if rows:
                old = (self._now() - KEEP).timestamp()
                connection.execute("DELETE FROM chunks WHERE last < ?", (old,))
                self._trim(source)

    def marks(self) -> dict[str, str]:
        with self._reading() as connection:
            return dict(connection.execute("SELECT source, mark FROM marks").fetchall())

    def forget_marks(self, sources: Sequence[str]) -> None:
        with self._changing() as connection:
            connection.executemany("DELETE FROM marks WHERE source = ?", [(one,) for one in sources])

    def newest_first(
        self, application: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[Sequence[LogRecord]]:
        begin = since.timestamp() if since is not None else 0.0
        end = until.timestamp() if until is not None else 1e18
        with self._reading() as connection:
            names = [key for (key,) in connection.execute(_names, (application, begin, end)).fetchall()]
        for name in names:
            with self._reading() as connection:
                row = connection.execute("SELECT content FROM chunks WHERE id = ?", (name,)).fetchone()
            if row is None:
                continue  # given up meanwhile
            try:
                yield _decoder.decode(zlib.decompress(row[0]))
            except (zlib.error, *UNREADABLE):
                _log.warning("logs.damaged", chunk=name)

    def oldest(self, application: str) -> datetime | None:
        with self._reading() as connection:
            (first,) = connection.execute(
                "SELECT min(first) FROM chunks WHERE application = ?", (application,)
            ).fetchone()
        return None if first is None else datetime.fromtimestamp(first, self._now().tzinfo)

    def _trim(self, source: str) -> None:
        """Give up the oldest chunks of a source, and of all, until what is left fits."""
        for most, where, given in (
            (self.most_source_bytes, "WHERE source = ?", (source,)),
            (self.most_bytes, "", ()),
        ):
            (size,) = self._connection.execute(
                f"SELECT coalesce(sum(size), 0) FROM chunks {where}",  # noqa: S608 - constants
                given,
            ).fetchone()
            if size <= most:
                continue
            over, names = size - most, list[tuple[int]]()
            query = f"SELECT id, size FROM chunks {where} ORDER BY last, id"  # noqa: S608 - constants
            for name, one in self._connection.execute(query, given):
                names.append((name,))
                over -= one
                if over <= 0:
                    break
            self._connection.executemany("DELETE FROM chunks WHERE id = ?", names)
