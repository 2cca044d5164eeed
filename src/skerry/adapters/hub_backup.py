"""Backs up a hub's data directory while the hub serves from it, or not.

The database comes first and as of one moment; blobs are never changed once they are there, so all that it names
are found after it. One backup of a directory at a time; what a killed one left is removed by the next.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from io import FileIO
from pathlib import Path

import msgspec

from skerry.adapters.backup_archive import ArchiveWriter, new_archive, unwritable
from skerry.adapters.durable_files import CHUNK_BYTES
from skerry.adapters.sql.snapshot import look_at, write_snapshot
from skerry.kit.digests import DIGEST_PATTERN, hex_of
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Rejected, Unavailable
from skerry.kit.locking import hold
from skerry.ports.hub_look import DatabaseLook
from skerry.spec.backup import BackupEntry, BackupLock, BackupManifest, BackupNote, BackupView
from skerry.spec.carrier import TrustRoot

NOTE = "backup.json"
LOCK = "backup.lock"
SNAPSHOT = "backup.db"
KEY_FILES = ("keys/hub.pem", "keys/metadata.pem", "tls/ca.key", "tls/ca.pem", "trust-root.json")
SECRETS_KEY = "keys/secrets.key"
PKI_FILE = "pki/authorities.json"
OTHER_FILES = ("tls/server.key", "tls/server.pem", SECRETS_KEY, PKI_FILE)
MAX_KEY_FILE_BYTES = 1 << 20

Tell = Callable[[int, int], None]


class BackupJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to back up, where to, and how it is locked. `key` is the file's key, which `lock` leads to."""

    data: Path
    target: Path
    lock: BackupLock
    key: bytes
    now: datetime
    version: str
    blobs: bool = True
    force: bool = False


class _Blob(msgspec.Struct, frozen=True):
    digest: str
    file: Path
    size_bytes: int


def back_up(job: BackupJob, tell: Tell) -> BackupView:
    """Write a backup; `tell` hears now and then how many bytes of how many are done.

    Raises:
        Rejected: no hub was ever served from there (`hub.absent`), its database is damaged.
        Conflict: another backup of it is being made (`backup.running`), or the file is there (`backup.exists`).
        Unavailable: the disk is full, or a file cannot be read; nothing is left of the attempt.
    """
    if not (job.data / "trust-root.json").is_file():
        raise Rejected("hub.absent", f"no hub has been served from {job.data}")
    busy = Conflict("backup.running", f"another backup of {job.data} is being made")
    try:
        with hold(job.data / LOCK, conflict=busy):
            _own_like(job.data / LOCK, job.data)
            view = _back_up(job, tell)
            view = msgspec.structs.replace(view, size_bytes=job.target.stat().st_size)
            note = BackupNote(made_at=job.now, size_bytes=view.size_bytes, whole=job.blobs)
            write_file(job.data / NOTE, msgspec.json.encode(note))
            _own_like(job.data / NOTE, job.data)
            return view
    except OSError as error:
        raise unwritable(error, job.target) from error


def _back_up(job: BackupJob, tell: Tell) -> BackupView:
    snapshot = job.data / SNAPSHOT
    # Refused before any work is done, and by the archive once more.
    with new_archive(job.target, job.lock, job.key, force=job.force) as archive:
        try:
            write_snapshot(job.data / "hub.db", snapshot)
            look = look_at(snapshot)
            database = snapshot.open("rb", buffering=0)
        finally:
            snapshot.unlink(missing_ok=True)  # it stays while it is open, and no longer
        with database:
            return _write(job, archive, database, look, tell)


def _write(
    job: BackupJob, archive: ArchiveWriter, database: FileIO, look: DatabaseLook, tell: Tell
) -> BackupView:
    size_bytes = os.fstat(database.fileno()).st_size
    files = {path: _read_key_file(job.data / path) for path in KEY_FILES}
    files |= {path: _read_key_file(job.data / path) for path in OTHER_FILES if (job.data / path).is_file()}
    blobs = [
        blob for blob in _blobs(job.data / "blobs" / "sha256") if job.blobs or blob.digest in look.documents
    ]
    total = size_bytes + sum(map(len, files.values())) + sum(blob.size_bytes for blob in blobs)
    manifest = BackupManifest(
        made_at=job.now,
        hub=msgspec.json.decode(files["trust-root.json"], type=TrustRoot).hub,
        version=job.version,
        sites=look.sites,
        hosts=look.hosts,
        releases=look.releases,
        blobs=len(blobs),
        size_bytes=total,
        whole=job.blobs,
    )
    archive.put_manifest(manifest)
    tell(0, total)
    for path, content in files.items():
        archive.put_entry(BackupEntry(path=path, size_bytes=len(content)), [content])
    archive.put_entry(BackupEntry(path="hub.db", size_bytes=size_bytes), _chunks(database))
    done, damaged = size_bytes, list[str]()
    tell(done, total)
    for blob in blobs:
        if not _put_blob(archive, blob):
            damaged.append(blob.digest)
        done += blob.size_bytes
        tell(done, total)
    return BackupView(file=str(job.target), size_bytes=0, manifest=manifest, damaged=tuple(damaged))


def _put_blob(archive: ArchiveWriter, blob: _Blob) -> bool:
    """Write a blob; False when its bytes are not what its name says. One that has gone since is left out."""
    try:
        file = blob.file.open("rb", buffering=0)
    except FileNotFoundError:
        return True
    state = hashlib.sha256()

    def hashed(opened: FileIO) -> Iterator[bytes]:
        for chunk in _chunks(opened):
            state.update(chunk)
            yield chunk

    with file:
        name = hex_of(blob.digest)
        path = f"blobs/sha256/{name[:2]}/{name}"
        archive.put_entry(BackupEntry(path=path, size_bytes=os.fstat(file.fileno()).st_size), hashed(file))
    return state.hexdigest() == name


def _chunks(file: FileIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _blobs(root: Path) -> Iterator[_Blob]:
    """Yield all whole blobs of a directory, in order of their names."""
    for file in sorted(root.glob("??/*")):
        digest = f"sha256:{file.name}"
        if re.fullmatch(DIGEST_PATTERN, digest) and file.parent.name == file.name[:2] and file.is_file():
            yield _Blob(digest, file, file.stat().st_size)


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "a hub without it cannot be restored: look for it in an older backup"
        raise Rejected("hub.keys_incomplete", f"missing: {path}", hint=hint) from None
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise Unavailable(
            "backup.unreadable", message, hint="run it as the user that the hub runs as"
        ) from error
    if len(content) > MAX_KEY_FILE_BYTES:
        raise Rejected("hub.keys_incomplete", f"{path} is much larger than any key")
    return content


def _own_like(path: Path, like: Path) -> None:
    """Give a file that root has made to who owns the directory: the hub reads and replaces it."""
    owner = like.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)
