"""A backup as one file: written beside its name and renamed when whole; read chunk by chunk, verified before use.

Inside the sealed chunks (`skerry.trust.backup`) are a manifest, entries and an end mark, each with its length in
front. Memory is bounded by one chunk and one manifest, whatever the file holds.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from skerry.adapters import durable_files
from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.durable import sync_directory
from skerry.kit.errors import Conflict, Missing, Unavailable
from skerry.spec.backup import BackupEntry, BackupLock, BackupManifest
from skerry.trust.backup import (
    CHUNK_BYTES,
    MAGIC,
    TAG_BYTES,
    ChunkCipher,
    Opening,
    altered,
    encode_head,
    head_length,
    open_lock,
    parse_head,
)

MAX_MANIFEST_BYTES = 16 << 20
MAX_ENTRY_BYTES = 1 << 10
_LENGTH = 4

T = TypeVar("T", bound=msgspec.Struct)


class ArchiveWriter:
    """Writes the manifest first, then entries, then the end."""

    def __init__(self, file: BinaryIO, lock: BackupLock, key: bytes) -> None:
        head = encode_head(lock)
        self._cipher = ChunkCipher(key, head)
        self._file = file
        self._waiting = bytearray()
        self.size_bytes = len(head)
        file.write(head)

    def put_manifest(self, manifest: BackupManifest) -> None:
        """Write what is in the backup."""
        self._write(_framed(manifest))

    def put_entry(self, entry: BackupEntry, chunks: Iterable[bytes]) -> None:
        """Write a file; `Unavailable` when it has not as many bytes as its entry says."""
        self._write(_framed(entry))
        left = entry.size_bytes
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
            self._write(chunk)
        if left:
            raise Unavailable("backup.file_changed", f"{entry.path} changed while it was read")

    def finish(self) -> None:
        """Write the end, which is what makes the backup whole."""
        self._write(bytes(_LENGTH))
        self._seal(bytes(self._waiting), last=True)

    def _write(self, content: bytes) -> None:
        self._waiting += content
        # One chunk is held back: the last one is sealed as such.
        while len(self._waiting) > CHUNK_BYTES:
            self._seal(bytes(self._waiting[:CHUNK_BYTES]), last=False)
            del self._waiting[:CHUNK_BYTES]

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        sealed = self._cipher.seal(chunk, last=last)
        self._file.write(sealed)
        self.size_bytes += len(sealed)


@contextmanager
def new_archive(target: Path, lock: BackupLock, key: bytes, *, force: bool) -> Generator[ArchiveWriter]:
    """Write a backup to `target`, which gets its name when the block ends well; else nothing is left.

    Raises:
        Conflict: there is a file of that name, and not `force` (`backup.exists`).
        Unavailable: it cannot be written (`disk.full`, `disk.unwritable`).
    """
    _refuse_taken(target, force=force)
    beside = target.with_name(target.name + ".new")
    try:
        beside.unlink(missing_ok=True)  # what a backup that was killed has left
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                writer = ArchiveWriter(file, lock, key)
                yield writer
                writer.finish()
                file.flush()
                os.fsync(file.fileno())
            _refuse_taken(target, force=force)
            beside.replace(target)
            sync_directory(target.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(error, target) from error


class ArchiveReader:
    """Reads the manifest when it is made, then entries, in their order."""

    def __init__(self, file: BinaryIO, opening: Opening) -> None:
        """Open a backup; raises what `skerry.trust.backup` refuses, and `Untrusted` for a malformed manifest."""
        start = file.read(len(MAGIC) + 2)
        size = head_length(start)
        head = start + file.read(size - len(start))
        if len(head) != size:
            raise altered("it ends within its head")
        lock = parse_head(head)
        self._cipher = ChunkCipher(open_lock(lock, opening), head)
        self._file = file
        self._next = file.read(CHUNK_BYTES + TAG_BYTES)
        self._waiting = memoryview(b"")
        self._ended = False
        self.done_bytes = size
        self.manifest = self._document(MAX_MANIFEST_BYTES, BackupManifest)

    def entries(self) -> Iterator[tuple[BackupEntry, Iterator[bytes]]]:
        """Yield each entry with its bytes, which must be read to their end; the last step verifies the end."""
        while size := self._length(MAX_ENTRY_BYTES):
            entry = _decode(self._exactly(size), BackupEntry)
            yield entry, self._content(entry.size_bytes)
        if self._waiting or not self._ended:
            raise altered("there is something after its end")

    def _content(self, size_bytes: int) -> Iterator[bytes]:
        left = size_bytes
        while left:
            piece = self._some(left)
            left -= len(piece)
            yield piece

    def _document(self, limit: int, kind: type[T]) -> T:
        return _decode(self._exactly(self._length(limit)), kind)

    def _length(self, limit: int) -> int:
        size = int.from_bytes(self._exactly(_LENGTH), "big")
        if size > limit:
            raise altered("a part of it is longer than any is")
        return size

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            parts.append(self._some(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _some(self, most: int) -> bytes:
        """Return at least one byte, and at most so many."""
        if not self._waiting:
            self._waiting = memoryview(self._open_chunk())
        piece = bytes(self._waiting[:most])
        self._waiting = self._waiting[most:]
        if not piece:
            raise altered("it ends too early")
        return piece

    def _open_chunk(self) -> bytes:
        if self._ended:
            raise altered("it ends too early")
        sealed, self._next = self._next, self._file.read(CHUNK_BYTES + TAG_BYTES)
        self._ended = not self._next
        self.done_bytes += len(sealed)
        return self._cipher.open(sealed, last=self._ended)


@contextmanager
def open_archive(file: Path, opening: Opening) -> Generator[ArchiveReader]:
    """Open a backup to be read; `Missing` when there is none, `Unavailable` when it cannot be read."""
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        raise Missing("backup.missing", f"there is no file {file}") from None
    except OSError as error:
        raise Unavailable("backup.unreadable", f"cannot read {file}: {error.strerror}") from error
    with opened:
        yield ArchiveReader(opened, opening)


def unwritable(error: OSError, where: Path) -> Exception:
    """Return the `Unavailable` for a file that cannot be written."""
    found = durable_files.translated(error, where)
    if isinstance(found, OSError):
        return Unavailable("disk.unwritable", f"cannot write {where}: {error.strerror}")
    return found


def _refuse_taken(target: Path, *, force: bool) -> None:
    if target.is_dir():
        raise Conflict("backup.exists", f"{target} is a directory", hint="name a file in it")
    if not force and os.path.lexists(target):
        hint = "choose another name, or overwrite it with --force"
        raise Conflict("backup.exists", f"there is a file {target} already", hint=hint)


def _framed(value: msgspec.Struct) -> bytes:
    body = encode_canonical(value)
    return len(body).to_bytes(_LENGTH, "big") + body


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise altered(f"a part of it is not what any version writes: {error}") from error
