"""SqliteAgentStore: what a host remembers, in one small SQLite file. Standard library only.

- Each call is one transaction, and durable when it returns (write-ahead log, synchronous=FULL).
- Nobody is near a host to repair it: a damaged file is set aside under another name, never deleted, and the
  agent begins with an empty one. It finds its identity in its key files and its work at the hub.
- A full disk must not keep a host from starting: then the file is opened without its shared memory companion,
  which would need room.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skerry.adapters.durable_files import make_directory
from skerry.adapters.durable_files import translated as translated_os
from skerry.adapters.sqlite_files import is_corrupt, is_full, translated
from skerry.kit.durable import sync_directory
from skerry.kit.errors import Conflict
from skerry.ports.agent_store import AgentStore, QueuedReport, WindowRow

_companions = ("", "-wal", "-shm")
_schema = (
    "CREATE TABLE documents (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE reports (sequence INTEGER PRIMARY KEY, envelope BLOB NOT NULL, sent INTEGER NOT NULL)",
    "PRAGMA user_version = 1",
)
_windows_schema = (
    (
        "CREATE TABLE windows (application TEXT NOT NULL, release TEXT NOT NULL, component TEXT NOT NULL, "
        "metric TEXT NOT NULL, begin INTEGER NOT NULL, until INTEGER NOT NULL, state TEXT NOT NULL, "
        "value BLOB NOT NULL, PRIMARY KEY (application, release, component, metric, begin)) WITHOUT ROWID"
    ),
    "PRAGMA user_version = 2",
)
_steps = (_schema, _windows_schema)
_forget_window = (
    "DELETE FROM windows WHERE application = ? AND release = ? AND component = ? AND metric = ? AND begin = ?"
)
_mark_window = (
    "UPDATE windows SET state = ? "
    "WHERE application = ? AND release = ? AND component = ? AND metric = ? AND begin = ? AND value = ?"
)
_names_of_windows = "SELECT application, release, component, metric, begin, until, state FROM windows"
_windows = "SELECT application, release, component, metric, begin, until, state, value FROM windows WHERE "


class SqliteAgentStore(AgentStore):
    """Usable from any thread; calls take turns."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self._connection = connection
        self._place = place
        self._turn = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, patience_s: float = 10.0) -> tuple[SqliteAgentStore, bool]:
        """Open or create the store; True when a damaged file was set aside (`<name>.corrupt-<n>`) for a new.

        A call waits at most `patience_s` for another process that writes.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        try:
            make_directory(path.parent)
            connection = _open_sound(path, patience_s)
            set_aside = connection is None
            if connection is None:
                _set_aside(path)
                connection = _connect(path, patience_s)
        except sqlite3.Error as error:
            raise translated(error, str(path)) or error from error
        except OSError as error:
            raise translated_os(error, path) from error
        return cls(connection, str(path)), set_aside

    def load(self, key: str) -> bytes | None:
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM documents WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        with self._changing() as connection:
            for key, value in documents.items():
                if value is None:
                    connection.execute("DELETE FROM documents WHERE key = ?", (key,))
                else:
                    connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (key, value))

    def put_report(self, report: QueuedReport) -> None:
        put = (
            "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT (sequence) "
            "DO UPDATE SET envelope = excluded.envelope, sent = excluded.sent WHERE NOT sent"
        )
        with self._changing() as connection:
            row = (report.sequence, report.envelope, report.sent)
            if connection.execute(put, row).rowcount == 0:
                message = f"report {report.sequence} was sent and cannot change"
                raise Conflict("report.sent", message, sequence=report.sequence)

    def reports(self, limit: int) -> Sequence[QueuedReport]:
        query = "SELECT sequence, envelope, sent FROM reports ORDER BY sequence LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(query, (limit,)).fetchall()
        return [QueuedReport(sequence, bytes(envelope), bool(sent)) for sequence, envelope, sent in rows]

    def mark_sent(self, up_to: int) -> None:
        with self._changing() as connection:
            connection.execute("UPDATE reports SET sent = 1 WHERE sequence <= ? AND NOT sent", (up_to,))

    def acknowledge(self, up_to: int) -> None:
        with self._changing() as connection:
            connection.execute("DELETE FROM reports WHERE sequence <= ?", (up_to,))

    def drop_oldest(self, keep: int) -> int:
        drop = (
            "DELETE FROM reports WHERE sequence <= "
            "(SELECT sequence FROM reports ORDER BY sequence DESC LIMIT 1 OFFSET ?)"
        )
        with self._changing() as connection:
            return connection.execute(drop, (keep,)).rowcount

    def change_windows(self, put: Sequence[WindowRow], remove: Sequence[WindowRow] = ()) -> None:
        replace = "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        with self._changing() as connection:
            connection.executemany(_forget_window, map(_name_of, remove))
            rows = ((*_name_of(one), one.end, one.state, one.value) for one in put)
            connection.executemany(replace, rows)

    def window_names(self) -> Sequence[WindowRow]:
        with self._reading() as connection:
            rows = connection.execute(_names_of_windows + " ORDER BY begin").fetchall()
        return [_window(row) for row in rows]

    def windows(
        self,
        *,
        application: str = "",
        releases: Sequence[str] = (),
        states: Sequence[str] = (),
        limit: int = 10_000,
    ) -> Sequence[WindowRow]:
        where = ["1"]
        values: list[str] = []
        for column, wanted in (
            ("application", [application] if application else ()),
            ("release", releases),
            ("state", states),
        ):
            if wanted:
                where.append(f"{column} IN ({', '.join('?' * len(wanted))})")
                values.extend(wanted)
        query = _windows + " AND ".join(where) + " ORDER BY begin LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(query, (*values, limit)).fetchall()
        return [_window(row) for row in rows]

    def mark_windows(self, windows: Sequence[WindowRow], state: str) -> None:
        with self._changing() as connection:
            connection.executemany(_mark_window, ((state, *_name_of(one), one.value) for one in windows))

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with self._turn, self._translating():
            yield self._connection

    @contextmanager
    def _changing(self) -> Generator[sqlite3.Connection]:
        """Hold a transaction: all of it is durable at the end, or none of it has happened."""
        with self._turn, self._translating():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(error, self._place) or error from error


def _name_of(window: WindowRow) -> tuple[str, str, str, str, int]:
    return window.application, window.release, window.component, window.metric, window.begin


def _window(row: tuple[Any, ...]) -> WindowRow:
    return WindowRow(*row)


def _open_sound(path: Path, patience_s: float) -> sqlite3.Connection | None:
    """Return a connection to a sound file, or None when the file is damaged."""
    connection: sqlite3.Connection | None = None
    try:
        connection = _connect(path, patience_s)
        rows = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        if is_corrupt(error):
            return None
        raise
    if rows == [("ok",)]:
        return connection
    connection.close()
    return None


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    try:
        return _prepare(path, patience_s, ())
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        return _prepare(path, patience_s, ("PRAGMA locking_mode=EXCLUSIVE",))


def _prepare(path: Path, patience_s: float, first: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
    try:
        for pragma in first:
            connection.execute(pragma)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA journal_size_limit=1048576")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in _steps[version:]:
            connection.execute("BEGIN IMMEDIATE")
            for statement in step:
                connection.execute(statement)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path) -> None:
    """Rename the damaged file and its companions to the first free number."""
    targets = (Path(f"{path}.corrupt-{number}") for number in itertools.count(1))
    target = next(target for target in targets if not target.exists())
    for companion in _companions:
        source = Path(f"{path}{companion}")
        if source.exists():
            source.rename(f"{target}{companion}")
    sync_directory(path.parent)
