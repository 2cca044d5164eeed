"""Files that are there whole, also after a power cut, or not there.

The order is always the same: write under another name, fsync the file, rename it, fsync the directory.
Without the first fsync a power cut can leave the right name on an empty file; without the second, no name.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from skerry.kit.durable import sync_directory
from skerry.kit.errors import Unavailable

CHUNK_BYTES = 256 * 1024
_full = {errno.ENOSPC, errno.EDQUOT}


def disk_full(where: Path | str) -> Unavailable:
    """Return the error that says that there is no room."""
    return Unavailable(
        "disk.full", f"no room left on the disk that holds {where}", hint="make room and try again"
    )


def translated(error: OSError, where: Path) -> Exception:
    """Return the `Unavailable` for a full disk, any other error as it is."""
    return disk_full(where) if error.errno in _full else error


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield a file in chunks of 256 KiB."""
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of `content`; a nearly full disk takes a part first and refuses only the rest."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_directory(path: Path) -> None:
    """Create a directory and those above it so that their names survive a power cut."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def move_durably(source: Path, target: Path) -> None:
    """Rename a file whose bytes are durable; OSError EXDEV when the two are on different file systems."""
    make_directory(target.parent)
    source.replace(target)
    sync_directory(target.parent)


def write_durably(target: Path, chunks: Iterable[bytes], *, staging: Path) -> None:
    """Write a file by way of the directory `staging`, which is on the same file system.

    Raises:
        Unavailable: no room (`disk.full`); nothing of the attempt is left behind.
    """
    temporary = staging / f"{target.name}.{uuid.uuid4().hex}.new"
    try:
        make_directory(staging)
        with temporary.open("xb", buffering=0) as file:
            for chunk in chunks:
                write_all(file.fileno(), chunk)
            os.fsync(file.fileno())
        move_durably(temporary, target)
    except OSError as error:
        raise translated(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
