"""The lock that tells whether an instance runs: held exclusively by its keeper, from before it starts.

flock(2) belongs to the open file, so the caller of a start takes it and hands it on through the descriptor
that the keeper inherits: there is no moment at which a running instance is not locked, and none at which a
lock outlives its keeper.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from skerry.kit.errors import Unavailable


def is_owned(lock: Path) -> bool:
    """Tell whether somebody holds the lock exclusively, without getting in the way of one who wants it."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared: readers do not disturb each other, and `own` knows how to wait for them.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def own(lock: Path, *, limit_s: float = 5.0) -> int | None:
    """Return a descriptor that holds the lock, or None when another owner has it.

    Raises:
        Unavailable: readers or removals kept the lock changing for `limit_s`.
    """
    limit = time.monotonic() + limit_s
    while time.monotonic() < limit:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == os.stat(lock).st_ino:
                return fd
        except BlockingIOError:
            if is_owned(lock):
                os.close(fd)
                return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        time.sleep(0.001)
    raise Unavailable("runtime.busy", "the instance's lock kept changing hands", lock=str(lock))
