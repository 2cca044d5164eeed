"""SqliteDocuments: what agent and relay stores have in common, over one SQLite connection. Standard library only.

Usable from any thread; calls take turns. Each call is one transaction, and durable when it returns.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from skerry.adapters.sqlite_files import translated
from skerry.ports.kept_documents import KeptDocuments

DOCUMENTS = "CREATE TABLE documents (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class SqliteDocuments(KeptDocuments):
    """Documents by name, in the table `DOCUMENTS`, and transactions for what else a store keeps."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self._connection = connection
        self._place = place
        self._turn = threading.Lock()

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

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def _begin(self) -> None:
        """Hook: a transaction begins, and this thread has the turn."""

    def _undo(self) -> None:
        """Hook: nothing of the transaction has happened."""

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with self._turn, self._translating():
            yield self._connection

    @contextmanager
    def _changing(self) -> Generator[sqlite3.Connection]:
        """Hold a transaction: all of it is durable at the end, or none of it has happened."""
        with self._turn, self._translating():
            self._begin()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._undo()
                if self._connection.in_transaction:  # SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translating(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(error, self._place) or error from error
