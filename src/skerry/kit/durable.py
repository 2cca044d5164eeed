"""Makes files durable, and replaces one so that a power cut leaves the old or the new.

The one place of this folder that touches a disk: processes on every layer need it, and it knows no domain.
"""

from __future__ import annotations

import os
from pathlib import Path

from skerry.kit.errors import Unavailable


def write_file(path: Path, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replace `path` as a whole; without `sync` a power cut may bring the old content back.

    Raises:
        Unavailable: it cannot be written, say because the disk is full (`disk.unwritable`).
    """
    beside = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
        if sync:
            sync_directory(path.parent)
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot write {path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
