"""SqliteAgentStore: what a host remembers, in one small SQLite file. Standard library only.

- Each call is one transaction, and durable when it returns (write-ahead log, synchronous=FULL).
- Nobody is near a host to repair it: a damaged file is set aside under another name, never deleted, and the
  agent begins with an empty one. It finds its identity in its key files and its work at the hub.
- A full disk must not keep a host from starting: then the file is opened without its shared memory companion,
  which would need room.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skerry.adapters.sqlite_documents import DOCUMENTS, SqliteDocuments
from skerry.adapters.sqlite_opening import open_database
from skerry.kit.errors import Conflict
from skerry.ports.agent_store import MAX_KEPT_EVENTS, AgentStore, KeptEvent, QueuedReport, WindowRow

_schema = (
    DOCUMENTS,
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
_events_schema = (
    "CREATE TABLE events (number INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    "PRAGMA user_version = 3",
)
_steps = (_schema, _windows_schema, _events_schema)
_forget_window = (
    "DELETE FROM windows WHERE application = ? AND release = ? AND component = ? AND metric = ? AND begin = ?"
)
_mark_window = (
    "UPDATE windows SET state = ? "
    "WHERE application = ? AND release = ? AND component = ? AND metric = ? AND begin = ? AND value = ?"
)
_names_of_windows = "SELECT application, release, component, metric, begin, until, state FROM windows"
_windows = "SELECT application, release, component, metric, begin, until, state, value FROM windows WHERE "


class SqliteAgentStore(SqliteDocuments, AgentStore):
    """Usable from any thread; calls take turns."""

    @classmethod
    def open(cls, path: Path, *, patience_s: float = 10.0) -> tuple[SqliteAgentStore, bool]:
        """Open or create the store; True when a damaged file was set aside (`<name>.corrupt-<n>`) for a new.

        A call waits at most `patience_s` for another process that writes.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        connection, set_aside = open_database(path, _steps, patience_s=patience_s)
        return cls(connection, str(path)), set_aside

    def put_report(self, report: QueuedReport, *, events: Sequence[KeptEvent] = ()) -> None:
        put = (
            "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT (sequence) "
            "DO UPDATE SET envelope = excluded.envelope, sent = excluded.sent WHERE NOT sent"
        )
        with self._changing() as connection:
            row = (report.sequence, report.envelope, report.sent)
            if connection.execute(put, row).rowcount == 0:
                message = f"report {report.sequence} was sent and cannot change"
                raise Conflict("report.sent", message, sequence=report.sequence)
            if events:
                rows = [(one.number, one.content) for one in events]
                connection.executemany("INSERT OR REPLACE INTO events VALUES (?, ?)", rows)
                oldest = events[-1].number - MAX_KEPT_EVENTS
                connection.execute("DELETE FROM events WHERE number <= ?", (oldest,))

    def kept_events(self, limit: int = MAX_KEPT_EVENTS) -> Sequence[KeptEvent]:
        query = "SELECT number, content FROM events ORDER BY number DESC LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(query, (limit,)).fetchall()
        return [KeptEvent(int(number), bytes(content)) for number, content in reversed(rows)]

    def reports(self, limit: int, *, above: int = -1) -> Sequence[QueuedReport]:
        query = "SELECT sequence, envelope, sent FROM reports WHERE sequence > ? ORDER BY sequence LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(query, (above, limit)).fetchall()
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


def _name_of(window: WindowRow) -> tuple[str, str, str, str, int]:
    return window.application, window.release, window.component, window.metric, window.begin


def _window(row: tuple[Any, ...]) -> WindowRow:
    return WindowRow(*row)
