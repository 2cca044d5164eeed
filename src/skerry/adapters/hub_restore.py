"""Restores a backup into a directory that gets its name when everything in it has been verified.

Until then everything is in `DIR.new`, which the next attempt removes: it begins with a mark of ours. No path of a
backup is used that a backup does not write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import msgspec

from skerry.adapters.backup_archive import ArchiveReader, unwritable
from skerry.adapters.durable_files import write_all
from skerry.kit.durable import sync_directory
from skerry.kit.errors import Conflict, Unavailable
from skerry.kit.locking import hold
from skerry.spec.backup import BackupEntry, RestoreMark
from skerry.trust.backup import altered

MARK = "restored.json"
NEEDED = frozenset(
    {"hub.db", "keys/hub.pem", "keys/metadata.pem", "tls/ca.key", "tls/ca.pem", "trust-root.json"}
)
_path_re = re.compile(
    r"hub\.db|trust-root\.json|keys/(?:hub|metadata)\.pem|keys/secrets\.key|pki/authorities\.json|tls/(?:ca|server)\.(?:key|pem)|blobs/sha256/([0-9a-f]{2})/([0-9a-f]{64})"
)

Tell = Callable[[int, int], None]


@contextlib.contextmanager
def staged(data: Path, mark: RestoreMark) -> Generator[Path]:
    """Yield an empty directory that becomes `data` when the block ends well; else nothing is left.

    Raises:
        Conflict: `data` has something in it (`restore.not_empty`), or another restore is under way.
        Unavailable: the disk is full, or `data` cannot be replaced by a directory beside it.
    """
    refuse_used(data)
    staging = data.with_name(data.name + ".new")
    busy = Conflict("restore.running", f"another restore into {data} is under way")
    try:
        _refuse_foreign(staging)
        with hold(staging / MARK, conflict=busy):
            try:
                _empty(staging)
                # In place: the lock is on this file, and not on its name.
                (staging / MARK).write_bytes(msgspec.json.encode(mark))
                yield staging
                _own_like(staging, data)
                _sync_tree(staging)
                refuse_used(data)
                staging.rename(data)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        sync_directory(data.parent)
    except OSError as error:
        raise unwritable(error, data) from error


def unpack(reader: ArchiveReader, staging: Path, tell: Tell) -> list[str]:
    """Write all of a backup below a directory; return the blobs that are not what their names say, left out.

    Raises:
        Untrusted: it was altered, cut off, or holds what no backup does (`backup.altered`).
    """
    found: set[str] = set()
    damaged: list[str] = []
    for entry, chunks in _checked(reader, found, tell):
        target = staging / entry.path
        _make_private(target.parent)
        digest = _write(target, chunks)
        if entry.path.startswith("blobs/") and digest != target.name:
            target.unlink()
            damaged.append(f"sha256:{target.name}")
    return damaged


def verify(reader: ArchiveReader, tell: Tell) -> list[str]:
    """Read all of a backup as `unpack` does, and write nothing."""
    damaged: list[str] = []
    for entry, chunks in _checked(reader, set(), tell):
        state = hashlib.sha256()
        for chunk in chunks:
            state.update(chunk)
        if entry.path.startswith("blobs/") and not entry.path.endswith(state.hexdigest()):
            damaged.append(f"sha256:{entry.path.rpartition('/')[2]}")
    return damaged


def refuse_used(data: Path) -> None:
    """Raise when a directory cannot be restored into.

    Raises:
        Conflict: something is in it, or it is no directory (`restore.not_empty`).
        Unavailable: it is a disk of its own, which a directory beside it cannot replace (`restore.mount`).
    """
    if not os.path.lexists(data):
        return
    if data.is_symlink() or not data.is_dir():
        raise Conflict("restore.not_empty", f"{data} is no directory")
    if any(data.iterdir()):
        hint = "nothing is ever moved or overwritten: name an empty directory, or one that is not there"
        raise Conflict("restore.not_empty", f"there is something in {data}", hint=hint)
    if data.is_mount():
        raise Unavailable("restore.mount", f"{data} is a disk of its own", hint="name a directory on it")


def _checked(
    reader: ArchiveReader, found: set[str], tell: Tell
) -> Iterator[tuple[BackupEntry, Iterator[bytes]]]:
    total, done = reader.manifest.size_bytes, 0
    for entry, chunks in reader.entries():
        match = _path_re.fullmatch(entry.path)
        if match is None or entry.path in found or (match[2] and not match[2].startswith(match[1])):
            raise altered(f"there is a file in it that does not belong there: {entry.path!r}")
        found.add(entry.path)
        yield entry, chunks
        done += entry.size_bytes
        tell(min(done, total), total)
    if missing := sorted(NEEDED - found):
        raise altered(f"it lacks {missing[0]}")


def _write(target: Path, chunks: Iterator[bytes]) -> str:
    """Write a file for its owner alone, and return the hexadecimal SHA-256 of its bytes."""
    state = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for chunk in chunks:
            state.update(chunk)
            write_all(descriptor, chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return state.hexdigest()


def _make_private(folder: Path) -> None:
    """Create a directory, and those above it, for their owner alone."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700)


def _refuse_foreign(staging: Path) -> None:
    """Raise unless a directory is absent, empty, or what an earlier restore has left."""
    if os.path.lexists(staging):
        ours = staging.is_dir() and not staging.is_symlink()
        if not ours or (any(staging.iterdir()) and not (staging / MARK).is_file()):
            raise Conflict("restore.not_empty", f"{staging} is in the way", hint="move it away")
    if staging.parent.is_dir() and not os.access(staging.parent, os.W_OK):
        message = f"{staging} cannot be made"
        raise Unavailable("disk.unwritable", message, hint="run it as root: the files get the owner of DIR")


def _empty(staging: Path) -> None:
    staging.chmod(0o700)
    for path in staging.iterdir():
        if path.name != MARK:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _own_like(staging: Path, data: Path) -> None:
    """Give everything to the owner of the empty directory that it replaces; only root can."""
    if os.geteuid() != 0 or not data.is_dir():
        return
    owner = data.stat()
    if owner.st_uid != 0:
        for path in (staging, *staging.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync_tree(staging: Path) -> None:
    for path in (*staging.rglob("*"), staging):
        if path.is_dir():
            sync_directory(path)
