"""Files to be pushed, as they were when they were hashed.

Rules: only ordinary files are taken; a file, or the part of it that is meant, is read once to be hashed and must
not change meanwhile, nor before it is uploaded.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from skerry.kit.digests import Digest
from skerry.kit.errors import Rejected

READ_BYTES = 1 << 20

Hashed = Callable[[Path, int, int], None]
"""Called while a file is hashed: which, how much of it, of how much."""


class SourceFile(msgspec.Struct, frozen=True):
    """A file, or the part of it from `start` on, as it was when it was hashed.

    `identity` changes whenever its content may have. `name` is what people know it by.
    """

    path: Path
    digest: Digest
    size_bytes: int
    identity: tuple[int, int, int, int]
    start: int = 0
    name: str = ""

    @property
    def known_as(self) -> str:
        """What people know it by."""
        return self.name or str(self.path)


def open_source(path: Path) -> BinaryIO:
    """Open an ordinary file to read.

    Raises:
        OSError: it cannot be opened.
        Rejected: it is a directory, device, pipe or socket (`push.not_a_file`).
    """
    # Not blocking, because opening a pipe that nobody writes to would wait for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", closefd=True)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Rejected("push.not_a_file", f"{path} is not an ordinary file")
    return file


def identity_of(file: BinaryIO) -> tuple[int, int, int, int]:
    """Return what tells two states of a file apart."""
    seen = os.fstat(file.fileno())
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def changed(path: Path) -> Rejected:
    """Return the error for a file that did not hold still."""
    hint = "wait until whatever writes it has finished, then push again"
    return Rejected("push.changed", f"{path} changed while it was read", hint=hint)


def hash_source(path: Path, on_progress: Hashed) -> SourceFile:
    """Return a file with its digest.

    Raises:
        OSError: it cannot be read.
        Rejected: it is no ordinary file, or it changed while it was read (`push.changed`).
    """
    state, read_bytes = hashlib.sha256(), 0
    with open_source(path) as file:
        identity = identity_of(file)
        while chunk := file.read(READ_BYTES):
            state.update(chunk)
            read_bytes += len(chunk)
            on_progress(path, read_bytes, identity[2])
        if identity_of(file) != identity or read_bytes != identity[2]:
            raise changed(path)
    return SourceFile(path, Digest("sha256:" + state.hexdigest()), read_bytes, identity)
