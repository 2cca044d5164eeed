"""A directory belongs to one process: a lock file that the kernel lets go of when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from skerry.kit.errors import Conflict, Unavailable


@contextlib.contextmanager
def hold(file: Path, *, conflict: Conflict) -> Generator[None]:
    """Hold a lock file, whose directory is made, for this process alone.

    Raises:
        Conflict: `conflict`, when another process holds it.
        Unavailable: the directory cannot be used (`data.unusable`).
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable("data.unusable", f"cannot use {file.parent}: {error.strerror}") from error
    try:
        if not _try_lock(descriptor):
            raise conflict
        yield
    finally:
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Tell whether some process holds a lock file."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
