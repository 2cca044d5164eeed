"""SqliteTelemetryBuffer: what a host measured, in one SQLite file of its own. Standard library only.

It is apart from what the agent must not lose: where it is damaged it is set aside, and another begins under another
name.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from skerry.adapters.sqlite_documents import DOCUMENTS, SqliteDocuments
from skerry.adapters.sqlite_opening import open_database
from skerry.ports.telemetry_buffer import NewBlock, StoredBlock
from skerry.telemetry.room import KeptBlock, Priority

ROW_BYTES = 64
"""What a row takes besides its content, roughly."""
IDS_AT_ONCE = 500

_schema = (
    DOCUMENTS,
    (
        "CREATE TABLE blocks (id INTEGER PRIMARY KEY, priority TEXT NOT NULL, begin INTEGER NOT NULL, "
        "resolution INTEGER NOT NULL, samples INTEGER NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, "
        "content BLOB NOT NULL)"
    ),
    "CREATE TABLE counts (name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
    "PRAGMA user_version = 1",
)
_put = (
    "INSERT INTO blocks (priority, begin, resolution, samples, number, size, content) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_kept = "SELECT id, priority, begin, resolution, size, number FROM blocks ORDER BY begin, id"
_load = "SELECT id, priority, begin, resolution, samples, number, content FROM blocks WHERE id = ?"
_count = "INSERT OR REPLACE INTO counts VALUES (?, ?)"


class SqliteTelemetryBuffer(SqliteDocuments):
    """A `TelemetryBuffer`."""

    _stream = ""

    @classmethod
    def open(cls, path: Path, *, patience_s: float = 10.0) -> SqliteTelemetryBuffer:
        """Open or create the buffer; a damaged one is set aside.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        connection, _ = open_database(path, (_schema,), patience_s=patience_s)
        opened = cls(connection, str(path))
        held = opened.load("stream")
        if held is None:
            held = secrets.token_hex(8).encode()
            opened.save({"stream": held})
        opened._stream = held.decode()
        return opened

    @property
    def stream(self) -> str:
        """See `TelemetryBuffer.stream`."""
        return self._stream

    def change(
        self,
        put: Sequence[NewBlock] = (),
        remove: Sequence[int] = (),
        *,
        counts: Mapping[str, int] = {},
    ) -> None:
        """See `TelemetryBuffer.change`."""
        with self._changing() as connection:
            connection.executemany("DELETE FROM blocks WHERE id = ?", [(one,) for one in remove])
            connection.executemany(_put, [_row(block) for block in put])
            connection.executemany(_count, list(counts.items()))

    def kept(self) -> Sequence[KeptBlock]:
        """See `TelemetryBuffer.kept`."""
        with self._reading() as connection:
            rows = connection.execute(_kept).fetchall()
        return [
            KeptBlock(
                key, msgspec.convert(priority, Priority), begin, resolution, size + ROW_BYTES, number > 0
            )
            for key, priority, begin, resolution, size, number in rows
        ]

    def blocks(self, ids: Sequence[int]) -> Sequence[StoredBlock]:
        """See `TelemetryBuffer.blocks`."""
        with self._reading() as connection:
            rows = [row for one in ids if (row := connection.execute(_load, (one,)).fetchone()) is not None]
        found = [
            StoredBlock(
                id=key,
                block=NewBlock(
                    priority=msgspec.convert(priority, Priority),
                    begin=begin,
                    resolution_s=resolution,
                    samples=samples,
                    number=number,
                    content=content,
                ),
            )
            for key, priority, begin, resolution, samples, number, content in rows
        ]
        return sorted(found, key=lambda one: (one.block.begin, one.id))

    def counts(self) -> Mapping[str, int]:
        """See `TelemetryBuffer.counts`."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT name, count FROM counts").fetchall())


def _row(block: NewBlock) -> tuple[object, ...]:
    return (
        block.priority,
        block.begin,
        block.resolution_s,
        block.samples,
        block.number,
        len(block.content),
        block.content,
    )
