"""What SQLite's errors mean to a caller, and whether a database file is sound.

Result codes: https://www.sqlite.org/rescode.html. Extended codes carry the primary one in their low byte.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from skerry.adapters.durable_files import disk_full
from skerry.kit.errors import Unavailable

_corrupt = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_busy = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_failed = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOLFS}


def is_corrupt(error: sqlite3.Error) -> bool:
    """Tell whether the file is damaged or no database at all."""
    return (_code(error) & 0xFF) in _corrupt


def is_full(error: sqlite3.Error) -> bool:
    """Tell whether the disk is full; the shared memory file fails to grow with a code of its own."""
    code = _code(error)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def translated(error: sqlite3.Error, place: str) -> Unavailable | None:
    """Return the error for the caller when the world is to blame, None when the statement is."""
    primary = _code(error) & 0xFF
    if is_full(error):
        return disk_full(place)
    if primary in _busy:
        return Unavailable("database.locked", f"the database {place} is locked by another process")
    if primary in _corrupt:
        return Unavailable("database.corrupt", f"the database {place} is damaged: {error}")
    if primary in _failed or isinstance(error, sqlite3.OperationalError):
        return Unavailable("database.failed", f"the database {place} cannot be used: {error}")
    return None


def damage(path: Path) -> str | None:
    """Return what is wrong with a database file, or None; the file stays as it is, its write-ahead log too.

    Raises:
        sqlite3.Error: it cannot be read for another reason than damage.
    """
    # A read-only connection cannot checkpoint, so even closing it does not move a log into a damaged file.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        rows = connection.execute("PRAGMA quick_check(3)").fetchall()
    except sqlite3.DatabaseError as error:
        if is_corrupt(error):
            return str(error)
        raise
    finally:
        connection.close()
    found = "; ".join(str(row[0]) for row in rows)
    return None if found == "ok" else found


def _code(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, "sqlite_errorcode", None)  # absent on errors the module raises itself
    return sqlite3.SQLITE_ERROR if code is None else code
