"""A hub's database looked at from outside: copied while the hub writes to it, and read without changing it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from skerry.adapters.sqlite_files import damage, translated
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.hub_look import DatabaseLook
from skerry.spec.evidence import Evidence
from skerry.spec.release import Release
from skerry.trust.repository import publisher_of, publisher_role

_patience_s = 10.0


def write_snapshot(database: Path, target: Path) -> None:
    """Write the database as of this moment to `target`, for its owner alone; whoever writes to it is not held up.

    Raises:
        Rejected: the database is damaged (`hub.database_corrupt`).
        Unavailable: it cannot be read, or the disk is full.
    """
    target.unlink(missing_ok=True)
    # SQLite writes into an empty file, and with the mode it finds.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(_open(database)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        found = damage(target)
    except sqlite3.DatabaseError as error:
        raise _explained(error, database) from error
    if found is not None:
        raise _damaged(database, found)


class _Signed(msgspec.Struct):
    expires: datetime


class _Metadata(msgspec.Struct):
    signed: _Signed


def look_at(database: Path) -> DatabaseLook:
    """Return what a database holds, of this version's schema or an older one.

    Raises:
        Rejected: it is damaged, or not a hub's (`hub.database_corrupt`).
        Unavailable: it cannot be read.
    """
    try:
        with contextlib.closing(_open(database)) as connection:
            connection.execute("BEGIN")
            return _look(connection)
    except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
        if isinstance(error, sqlite3.DatabaseError):
            raise _explained(error, database) from error
        raise _damaged(database, str(error)) from error


def _look(connection: sqlite3.Connection) -> DatabaseLook:
    tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    held = (
        connection.execute("SELECT site FROM recoveries WHERE held_since IS NOT NULL ORDER BY site")
        if "recoveries" in tables
        else ()
    )
    documents: dict[str, int] = {}
    files: dict[str, int] = {}
    names: list[str] = []
    for name, digest, document in connection.execute(
        "SELECT name, digest, document FROM releases ORDER BY name"
    ):
        names.append(name)
        documents[digest] = len(document)
        release = msgspec.json.decode(document, type=Release)
        files.update((str(file.digest), file.size_bytes) for file in release.files())
    for (attached,) in connection.execute("SELECT evidence FROM evidence") if "evidence" in tables else ():
        evidence = msgspec.json.decode(attached, type=tuple[Evidence, ...])
        files.update((one.digest, one.size_bytes) for one in evidence)
    hosts, seen = connection.execute("SELECT count(*), max(last_seen_at) FROM hosts").fetchone()
    return DatabaseLook(
        sites=dict(connection.execute("SELECT name, generation FROM sites ORDER BY name").fetchall()),
        held=tuple(str(site) for (site,) in held),
        hosts=hosts,
        last_seen_at=None
        if seen is None
        else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=seen),
        releases=tuple(names),
        documents=documents,
        files=files,
        metadata=_expiries(connection) if "metadata" in tables else {},
    )


def _expiries(connection: sqlite3.Connection) -> dict[str, datetime]:
    """Return until when the newest metadata of each role holds; bins count for their publisher's role."""
    expiries: dict[str, datetime] = {}
    for role, _, content in connection.execute(
        "SELECT role, max(version), content FROM metadata GROUP BY role"
    ):
        name = publisher_role(publisher) if (publisher := publisher_of(role)) else str(role)
        until = msgspec.json.decode(content, type=_Metadata).signed.expires
        expiries[name] = min(until, expiries.get(name, until))
    return expiries


def _open(database: Path) -> sqlite3.Connection:
    uri = f"{database.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_patience_s, isolation_level=None)
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def _explained(error: sqlite3.DatabaseError, database: Path) -> Exception:
    known = translated(error, str(database))
    if known is not None and known.code == "database.corrupt":
        return _damaged(database, str(error))
    return known or Unavailable("database.failed", f"the database {database} cannot be used: {error}")


def _damaged(database: Path, found: str) -> Rejected:
    message = f"the hub's database {database} is damaged: {found}"
    return Rejected("hub.database_corrupt", message, hint="restore a backup into another directory")
