"""Opening the hub's SQLite database: checked first, migrated, then one writer and many readers.

- A damaged file, or one that a newer version wrote, is refused and not touched.
- synchronous=FULL: with the write-ahead log this is what makes a commit survive a power cut. Commits are
  grouped, so its price is shared.
- Readers are pooled and stay open; opening one costs several times what a read does. Each read is one
  statement, hence one snapshot. Without a file there is one connection, and reads go through the writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool, StaticPool

from skerry.adapters.sql import migrations
from skerry.adapters.sql.schema import metadata
from skerry.adapters.sql.writer import Writer, translate
from skerry.adapters.sqlite_files import damage
from skerry.kit.errors import Rejected

T = TypeVar("T")

_kept_readers = 64
_busy_timeout_s = 10.0
_pragmas = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA temp_store=MEMORY",  # rolling a savepoint back must not need room on another disk
    "PRAGMA journal_size_limit=67108864",
)


class Database:
    """Runs callables on a connection: `read` any number at a time, `write` one after the other."""

    def __init__(self, writer: Writer, readers: sa.Engine | None, place: str) -> None:
        self._writer = writer
        self._readers = readers
        self._place = place

    def read(self, call: Callable[[sa.Connection], T]) -> T:
        """Return what `call` reads; raises `Unavailable` when the database cannot be used."""
        if self._readers is None:
            return self._writer.call(call)
        try:
            with self._readers.connect() as connection:
                return call(connection)
        except exc.DBAPIError as error:
            raise translate(error, self._place) from error

    def write(self, call: Callable[[sa.Connection], T]) -> T:
        """Return what `call` returned, once its changes are durable."""
        return self._writer.call(call)

    def close(self) -> None:
        """Finish what is queued and let go of the file."""
        if self._readers is not None:
            self._readers.dispose()
        self._writer.close()


def open_memory() -> Database:
    """Return an empty database that lives as long as the process keeps it."""
    engine = _engine(":memory:", begin="BEGIN IMMEDIATE", one=True)
    metadata.create_all(engine)
    return Database(Writer(engine, place="in memory"), None, "in memory")


def open_file(path: Path) -> Database:
    """Return the database at `path`, created or migrated as needed.

    Raises:
        Rejected: it is damaged (`hub.database_corrupt`), newer than this version (`hub.database_newer`) or
            not the hub's (`hub.database_foreign`); the file is as it was.
        Unavailable: it cannot be opened (`disk.full`, `database.locked`, `database.failed`).
    """
    place = str(path)
    try:
        if path.exists() and path.stat().st_size > 0:
            _refuse_damaged(path)
            _refuse_foreign(path)
        engine = _engine(place, begin="BEGIN IMMEDIATE", one=True)
        try:
            with engine.begin() as connection:
                migrations.upgrade(connection)
        except BaseException:
            engine.dispose()
            raise
        readers = _engine(place, begin="", one=False)
        return Database(Writer(engine, place=place), readers, place)
    except (sqlite3.Error, exc.DBAPIError) as error:
        raise translate(error, place) from error


def _refuse_damaged(path: Path) -> None:
    found = damage(path)
    if found is not None:
        raise Rejected(
            "hub.database_corrupt",
            f"the hub's database is damaged: {found}",
            hint=f"restore a backup; the file was left untouched at {path}",
        )


def _refuse_foreign(path: Path) -> None:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_busy_timeout_s)
    try:
        tables = {
            str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        versioned = "alembic_version" in tables
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall() if versioned else []
    finally:
        connection.close()
    if tables and not versioned:
        raise Rejected(
            "hub.database_foreign", f"{path} is a database, but not a hub's", hint="name another file"
        )
    unknown = sorted({str(row[0]) for row in rows} - migrations.known_revisions())
    if unknown:
        raise Rejected(
            "hub.database_newer",
            f"the database {path} was written by a newer version (schema {unknown[0]})",
            hint="install that version again, or restore a backup made before",
        )


def _engine(place: str, *, begin: str, one: bool) -> sa.Engine:
    """Return an engine whose transactions start with `begin`; with "" each statement stands alone."""

    def connect() -> sqlite3.Connection:
        # isolation_level=None: the module starts no transactions of its own, which would break savepoints.
        # Connections move between threads, never shared by two at a time: the pool sees to that.
        connection = sqlite3.connect(
            place, timeout=_busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        for pragma in _pragmas:
            connection.execute(pragma)
        return connection

    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    if one:
        engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    else:
        engine = sa.create_engine(
            "sqlite://",
            creator=connect,
            poolclass=QueuePool,
            pool_size=_kept_readers,
            max_overflow=-1,
            pool_use_lifo=True,
        )
    if begin:
        event.listen(engine, "begin", start)
    return engine
