"""Lets root work in a data directory as the user it belongs to, so that whoever runs there can use what is written."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def acting_as_owner(data: Path) -> Generator[None]:
    """Act as the owner of a data directory where root runs a command; all others are who they are.

    The whole process is meant: for commands, not for what runs on and on.
    """
    owner = data.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
