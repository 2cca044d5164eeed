"""Looks a hub's data directory over without changing anything in it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509

from skerry.adapters.hub_backup import KEY_FILES, NOTE, OTHER_FILES, PKI_FILE, SECRETS_KEY, SNAPSHOT
from skerry.adapters.hub_restore import MARK
from skerry.adapters.sql.snapshot import look_at
from skerry.adapters.sqlite_files import damage
from skerry.kit.canonical import UNREADABLE
from skerry.kit.digests import hex_of
from skerry.kit.errors import SkerryError
from skerry.kit.instants import from_epoch
from skerry.kit.locking import is_held
from skerry.ports.hub_look import CertificateLook, DatabaseLook, FileLook, HubLook
from skerry.spec.backup import BackupNote, RestoreMark

STALE = timedelta(days=1)
MAX_NOTE_BYTES = 1 << 16
_certificates = ("tls/ca.pem", "tls/server.pem")
_secrets = (".pem", ".key")

T = TypeVar("T")


def look_over(data: Path, now: datetime) -> HubLook:
    """Return everything about a data directory; what cannot be read is said, not raised."""
    if not (data / "trust-root.json").is_file():
        return HubLook(data=str(data), now=now, is_hub=False)
    database, problem = _look_at(data / "hub.db")
    disk = shutil.disk_usage(data)
    return HubLook(
        data=str(data),
        now=now,
        is_hub=True,
        served=is_held(data / "hub.lock"),
        directory_mode=stat.S_IMODE(data.stat().st_mode),
        files=tuple(_look_at_file(data, path) for path in _names(data)),
        certificates=tuple(_look_at_certificate(data / path) for path in _certificates),
        newest_file_at=_newest(data),
        disk_bytes=disk.total,
        free_bytes=disk.free,
        backup=_read(data / NOTE, BackupNote),
        restored=_read(data / MARK, RestoreMark),
        database=database,
        database_problem=problem,
        missing_blobs=_missing(data, database) if database else (),
        leftovers=tuple(_leftovers(data, now)),
        offline_keys=tuple(sorted(path.name for path in (data / "offline-keys").glob("*.pem"))),
    )


def _names(data: Path) -> Iterator[str]:
    """Yield the names of the files to look at; the key of secrets may be elsewhere, or not needed yet.

    A hub of before there were certificates has none of theirs until it is served.
    """
    for name in (*KEY_FILES, *OTHER_FILES, "hub.db"):
        if name not in (SECRETS_KEY, PKI_FILE) or (data / name).exists():
            yield name


def _look_at_file(data: Path, name: str) -> FileLook:
    path = data / name
    secret = name == PKI_FILE or (name.endswith(_secrets) and not name.endswith(_certificates))
    try:
        found = path.stat()
    except OSError:
        return FileLook(path=name, secret=secret)
    return FileLook(
        path=name,
        secret=secret,
        mode=stat.S_IMODE(found.st_mode),
        is_link=path.resolve() != data.resolve() / name,
        readable=os.access(path, os.R_OK),
    )


def _look_at_certificate(path: Path) -> CertificateLook:
    name = f"tls/{path.name}"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return CertificateLook(name=name, problem="it is missing")
    except (OSError, ValueError) as error:
        return CertificateLook(name=name, problem=f"it cannot be read: {error}")
    return CertificateLook(
        name=name, not_before=certificate.not_valid_before_utc, not_after=certificate.not_valid_after_utc
    )


def _look_at(database: Path) -> tuple[DatabaseLook | None, str]:
    if not database.is_file():
        return None, "it is missing"
    try:
        found = damage(database)
        return (None, found) if found is not None else (look_at(database), "")
    except (SkerryError, OSError) as error:
        return None, str(error)
    except Exception as error:  # whatever a broken database brings up, the other findings count, too
        return None, f"{type(error).__name__}: {error}"


def _missing(data: Path, database: DatabaseLook) -> tuple[str, ...]:
    """Return the blobs that releases name and that are not there with their size; their bytes are not read."""
    missing: list[str] = []
    for digest, size_bytes in (database.documents | database.files).items():
        name = hex_of(digest)
        try:
            found = (data / "blobs" / "sha256" / name[:2] / name).stat().st_size
        except OSError:
            found = -1
        if found != size_bytes:
            missing.append(digest)
    return tuple(sorted(missing))


def _newest(data: Path) -> datetime | None:
    times = [
        path.stat().st_mtime
        for name in (*KEY_FILES, "hub.db", "hub.db-wal")
        if (path := data / name).exists()
    ]
    return from_epoch(max(times)) if times else None


def _leftovers(data: Path, now: datetime) -> list[str]:
    """Return what a process that was killed has left, unless it may still be at work."""
    old = (now - STALE).timestamp()
    found = [*data.glob("*.new"), *data.glob("keys/*.new"), *data.glob("tls/*.new"), data / SNAPSHOT]
    found += [
        path
        for pattern in ("blobs/staging/*", "uploads/partial/*", "deltas/staging/*")
        for path in data.glob(pattern)
    ]
    found.append(data.with_name(data.name + ".new"))
    busy = is_held(data / "backup.lock")
    return sorted(
        str(path)
        for path in found
        if path.exists() and (path.stat().st_mtime < old or (path.name == SNAPSHOT and not busy))
    )


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_NOTE_BYTES), type=kind)
    except (OSError, *UNREADABLE):
        return None
