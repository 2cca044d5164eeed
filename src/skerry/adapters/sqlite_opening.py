"""Opens a small SQLite file that nobody is near to repair. Standard library only.

- Each transaction is durable when it ends (write-ahead log, synchronous=FULL).
- A damaged file is set aside under another name, never deleted, and an empty one begins.
- A full disk must not keep a process from starting: then the file is opened without its shared memory companion,
  which would need room.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from skerry.adapters.durable_files import make_directory
from skerry.adapters.durable_files import translated as translated_os
from skerry.adapters.sqlite_files import is_corrupt, is_full, translated
from skerry.kit.durable import sync_directory

Steps = Sequence[Sequence[str]]
"""The statements that bring the tables from each version (`PRAGMA user_version`) to the next."""

_companions = ("", "-wal", "-shm")


def open_database(path: Path, steps: Steps, *, patience_s: float) -> tuple[sqlite3.Connection, bool]:
    """Open or create a file; True when a damaged one was set aside (`<name>.corrupt-<n>`) for a new.

    A statement waits at most `patience_s` for another process that writes.

    Raises:
        Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
    """
    try:
        make_directory(path.parent)
        connection = _open_sound(path, steps, patience_s)
        set_aside = connection is None
        if connection is None:
            _set_aside(path)
            connection = _connect(path, steps, patience_s)
    except sqlite3.Error as error:
        raise translated(error, str(path)) or error from error
    except OSError as error:
        raise translated_os(error, path) from error
    return connection, set_aside


def _open_sound(path: Path, steps: Steps, patience_s: float) -> sqlite3.Connection | None:
    """Return a connection to a sound file, or None when the file is damaged."""
    connection: sqlite3.Connection | None = None
    try:
        connection = _connect(path, steps, patience_s)
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


def _connect(path: Path, steps: Steps, patience_s: float) -> sqlite3.Connection:
    try:
        return _prepare(path, steps, patience_s, ())
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        return _prepare(path, steps, patience_s, ("PRAGMA locking_mode=EXCLUSIVE",))


def _prepare(path: Path, steps: Steps, patience_s: float, first: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
    try:
        for pragma in first:
            connection.execute(pragma)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA journal_size_limit=1048576")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in steps[version:]:
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
