"""Replaces a file so that a power cut leaves the old one or the new one.

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
            _sync_directory(path.parent)
    except OSError as error:
        raise Unavailable("disk.unwritable", f"cannot write {path}: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
