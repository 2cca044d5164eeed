"""SqliteRelayStore: what a relay remembers, in one SQLite file. Standard library only.

- Each call is one transaction, and durable when it returns (write-ahead log, synchronous=FULL).
- A damaged file is set aside under another name and the relay begins with an empty one, under another name as a keeper:
  hosts have all that the hub has not acknowledged, and hand it over again.
- How much waits is counted as it comes and goes, so that a long queue is not read to be measured.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from skerry.adapters.sqlite_documents import DOCUMENTS, SqliteDocuments
from skerry.adapters.sqlite_files import translated
from skerry.adapters.sqlite_opening import open_database
from skerry.kit.errors import Unavailable
from skerry.ports.relay_store import (
    Done,
    KeptMetrics,
    KeptReport,
    QueueSize,
    RelayStore,
    SignedKind,
    Taken,
    Taking,
)

ROW_BYTES = 200
"""What a row takes besides its envelopes, indexes included; roughly."""

_schema = (
    DOCUMENTS,
    (
        "CREATE TABLE reports (number INTEGER PRIMARY KEY, key TEXT NOT NULL, sequence INTEGER NOT NULL, "
        "heartbeat INTEGER NOT NULL, size INTEGER NOT NULL, taken_at REAL NOT NULL, envelope BLOB NOT NULL)"
    ),
    "CREATE UNIQUE INDEX reports_of_host ON reports (key, sequence)",
    "CREATE INDEX reports_in_turn ON reports (heartbeat, number)",
    (
        "CREATE TABLE metrics (number INTEGER PRIMARY KEY, key TEXT NOT NULL, sequence INTEGER NOT NULL, "
        "size INTEGER NOT NULL, taken_at REAL NOT NULL, envelope BLOB NOT NULL, report BLOB NOT NULL)"
    ),
    "CREATE UNIQUE INDEX metrics_of_host ON metrics (key, sequence)",
    "CREATE TABLE hosts (key TEXT PRIMARY KEY, held INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE dropped (what TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE signed (kind TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, "
        "envelope BLOB NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID"
    ),
    "PRAGMA user_version = 1",
)
_steps = (_schema,)

_add_report = (
    "INSERT OR IGNORE INTO reports (key, sequence, heartbeat, size, taken_at, envelope) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_add_metrics = (
    "INSERT OR IGNORE INTO metrics (key, sequence, size, taken_at, envelope, report) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_add_held = (
    "INSERT INTO hosts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET held = excluded.held "
    "WHERE excluded.held > hosts.held"
)
_add_dropped = (
    "INSERT INTO dropped VALUES (?, ?) ON CONFLICT (what) DO UPDATE SET count = count + excluded.count"
)
_put_signed = (
    "INSERT INTO signed VALUES (?, ?, ?, ?) ON CONFLICT (kind, name) DO UPDATE "
    "SET generation = excluded.generation, envelope = excluded.envelope "
    "WHERE ? > signed.generation"
)
_oldest_metrics = "DELETE FROM metrics WHERE number = (SELECT min(number) FROM metrics) RETURNING size"
_oldest_heartbeat = (
    "DELETE FROM reports WHERE number = (SELECT min(number) FROM reports WHERE heartbeat = 1) RETURNING size"
)


class _Waiting:
    """Counts rows and bytes."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows = rows
        self.size = size

    def add(self, sizes: Sequence[int], sign: int = 1) -> None:
        self.rows += sign * len(sizes)
        self.size += sign * sum(sizes)

    def copy(self) -> _Waiting:
        return _Waiting(self.rows, self.size)

    @classmethod
    def counted(cls, connection: sqlite3.Connection, table: str) -> _Waiting:
        """Count what `table` holds."""
        query = f"SELECT count(*), coalesce(sum(size), 0) FROM {table}"  # noqa: S608
        return cls(*connection.execute(query).fetchone())


class SqliteRelayStore(SqliteDocuments, RelayStore):
    """Usable from any thread; calls take turns."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        super().__init__(connection, place)
        self._reports = _Waiting.counted(connection, "reports")
        self._metrics = _Waiting.counted(connection, "metrics")
        self._before = self._reports, self._metrics

    @classmethod
    def open(cls, path: Path, *, patience_s: float = 10.0) -> tuple[SqliteRelayStore, bool]:
        """Open or create the store; True when a damaged file was set aside for a new.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        connection, set_aside = open_database(path, _steps, patience_s=patience_s)
        return cls(connection, str(path)), set_aside

    @classmethod
    def open_to_read(cls, path: Path, *, patience_s: float = 10.0) -> SqliteRelayStore:
        """Open a store that a relay may have open, to read it: nothing is made, mended or set aside.

        Raises:
            Unavailable: it cannot be read (`database.failed`, `database.locked`).
        """
        try:
            uri = f"{path.absolute().as_uri()}?mode=rw"  # which makes no file
            connection = sqlite3.connect(
                uri, uri=True, timeout=patience_s, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA query_only=ON")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version != len(_steps):
                    hint = "use the version of skerry that the relay runs with"
                    raise Unavailable("database.version", f"{path} is of another version", hint=hint)
                return cls(connection, str(path))
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise translated(error, str(path)) or Unavailable("database.failed", str(error)) from error

    def take(self, takings: Sequence[Taking], *, limit_bytes: int) -> Sequence[Taken]:
        with self._changing() as connection:
            return [self._take(connection, taking, limit_bytes) for taking in takings]

    def waiting_reports(self, limit: int, limit_bytes: int) -> Sequence[KeptReport]:
        query = (
            "SELECT key, sequence, heartbeat, envelope, taken_at, size FROM reports "
            "ORDER BY heartbeat, number LIMIT ?"
        )
        with self._reading() as connection, closing(connection.execute(query, (limit,))) as rows:
            return _within(rows, limit_bytes)

    def reports_after(self, key: str, sequence: int, limit_bytes: int) -> Sequence[KeptReport]:
        query = (
            "SELECT key, sequence, heartbeat, envelope, taken_at, size FROM reports "
            "WHERE (key, sequence) > (?, ?) ORDER BY key, sequence"
        )
        with self._reading() as connection, closing(connection.execute(query, (key, sequence))) as rows:
            return _within(rows, limit_bytes)

    def waiting_metrics(self, limit: int, limit_bytes: int) -> Sequence[KeptMetrics]:
        query = "SELECT key, sequence, envelope, report, taken_at, size FROM metrics ORDER BY number LIMIT ?"
        found: dict[str, KeptMetrics] = {}
        with self._reading() as connection:
            for key, sequence, envelope, report, taken_at, size in connection.execute(query, (limit,)):
                if key in found:
                    continue
                limit_bytes -= size
                if limit_bytes < 0 and found:
                    break
                found[key] = KeptMetrics(key, sequence, bytes(envelope), bytes(report), taken_at)
        return list(found.values())

    def forget(self, done: Sequence[Done], *, given_up: bool = False) -> None:
        with self._changing() as connection:
            for one in done:
                gone = (
                    self._remove(connection, "reports", one.key, one.reports),
                    self._remove(connection, "metrics", one.key, one.metrics),
                )
                for what, count in zip(("reports", "metrics"), gone, strict=True):
                    if given_up and count:
                        connection.execute(_add_dropped, (what, count))

    def held(self) -> dict[str, int]:
        with self._reading() as connection:
            return dict(connection.execute("SELECT key, held FROM hosts").fetchall())

    def let_go(self, key: str) -> None:
        with self._changing() as connection:
            self._remove(connection, "reports", key, 1 << 62)
            connection.execute("DELETE FROM hosts WHERE key = ?", (key,))

    def size(self) -> QueueSize:
        with self._reading() as connection:
            dropped = dict(connection.execute("SELECT what, count FROM dropped").fetchall())
            (oldest,) = connection.execute(
                "SELECT min(taken_at) FROM (SELECT (SELECT taken_at FROM reports ORDER BY number LIMIT 1) AS taken_at "
                "UNION ALL SELECT (SELECT taken_at FROM metrics ORDER BY number LIMIT 1))"
            ).fetchone()
            return QueueSize(
                reports=self._reports.rows,
                metrics=self._metrics.rows,
                used_bytes=self._reports.size + self._metrics.size,
                dropped_reports=dropped.get("reports", 0),
                dropped_metrics=dropped.get("metrics", 0),
                oldest_at=oldest,
            )

    def put_signed(
        self, kind: SignedKind, name: str, generation: int, envelope: bytes, *, again: bool = False
    ) -> bool:
        with self._changing() as connection:
            values = (kind, name, generation, envelope, generation + again)
            return connection.execute(_put_signed, values).rowcount == 1

    def signed(self, kind: SignedKind, name: str) -> bytes | None:
        query = "SELECT envelope FROM signed WHERE kind = ? AND name = ?"
        with self._reading() as connection:
            row = connection.execute(query, (kind, name)).fetchone()
        return None if row is None else bytes(row[0])

    def generations(self, kind: SignedKind) -> dict[str, int]:
        with self._reading() as connection:
            rows = connection.execute("SELECT name, generation FROM signed WHERE kind = ?", (kind,))
            return dict(rows.fetchall())

    def remove_signed(self, kind: SignedKind, names: Sequence[str]) -> None:
        with self._changing() as connection:
            connection.executemany(
                "DELETE FROM signed WHERE kind = ? AND name = ?", ((kind, name) for name in names)
            )

    def _take(self, connection: sqlite3.Connection, taking: Taking, limit: int) -> Taken:
        needed = sum(len(one.envelope) + ROW_BYTES for one in taking.reports)
        reports = not taking.reports or self._make_room(connection, needed, limit)
        if reports:
            for one in taking.reports:
                self._add_report(connection, one)
        metrics = False
        if taking.metrics is not None and reports:
            size = len(taking.metrics.envelope) + len(taking.metrics.report) + ROW_BYTES
            metrics = self._make_room(connection, size, limit, for_metrics=True)
            if metrics:
                self._add_metrics(connection, taking.metrics, size)
        return Taken(reports, metrics)

    def _add_report(self, connection: sqlite3.Connection, one: KeptReport) -> None:
        size = len(one.envelope) + ROW_BYTES
        stale = connection.execute(
            "DELETE FROM reports WHERE key = ? AND heartbeat = 1 AND sequence < ? RETURNING size",
            (one.key, one.sequence),
        ).fetchall()
        self._reports.add([row[0] for row in stale], -1)
        row = (one.key, one.sequence, one.heartbeat, size, one.taken_at, one.envelope)
        if connection.execute(_add_report, row).rowcount == 1:
            self._reports.add([size])
        connection.execute(_add_held, (one.key, one.sequence))

    def _add_metrics(self, connection: sqlite3.Connection, one: KeptMetrics, size: int) -> None:
        row = (one.key, one.sequence, size, one.taken_at, one.envelope, one.report)
        if connection.execute(_add_metrics, row).rowcount == 1:
            self._metrics.add([size])

    def _make_room(
        self, connection: sqlite3.Connection, needed: int, limit: int, *, for_metrics: bool = False
    ) -> bool:
        """Drop what matters least until `needed` bytes fit; tell whether they do."""
        for what, waiting, drop in (
            ("metrics", self._metrics, _oldest_metrics),
            ("reports", self._reports, _oldest_heartbeat),
        ):
            dropped = 0
            while self._reports.size + self._metrics.size + needed > limit:
                gone = connection.execute(drop).fetchall()
                if not gone:
                    break
                waiting.add([gone[0][0]], -1)
                dropped += 1
            if dropped:
                connection.execute(_add_dropped, (what, dropped))
            if for_metrics:
                break
        return self._reports.size + self._metrics.size + needed <= limit

    def _remove(self, connection: sqlite3.Connection, table: str, key: str, up_to: int) -> int:
        gone = connection.execute(
            f"DELETE FROM {table} WHERE key = ? AND sequence <= ? RETURNING size",  # noqa: S608
            (key, up_to),
        ).fetchall()
        (self._reports if table == "reports" else self._metrics).add([row[0] for row in gone], -1)
        return len(gone)

    def _begin(self) -> None:
        self._before = self._reports.copy(), self._metrics.copy()

    def _undo(self) -> None:
        self._reports, self._metrics = self._before


def _within(rows: Iterable[tuple[Any, ...]], limit_bytes: int) -> list[KeptReport]:
    """Return as many reports as have so many bytes, at least one."""
    found: list[KeptReport] = []
    for key, sequence, heartbeat, envelope, taken_at, size in rows:
        limit_bytes -= size
        if limit_bytes < 0 and found:
            break
        found.append(KeptReport(key, sequence, bool(heartbeat), bytes(envelope), taken_at))
    return found
