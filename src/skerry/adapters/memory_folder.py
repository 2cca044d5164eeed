"""Finds a directory whose files are in memory alone, where a host may put what must not be on a disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = "SKERRY_RUN_DIR"
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def find_memory_folder(
    data: Path, environment: Mapping[str, str], mounts: Path = Path("/proc/self/mountinfo")
) -> Path | None:
    """Return a directory in memory for the agent of a data directory, None where there is no such file system.

    It is the same each time and another one for each data directory. It need not be there yet.
    """
    named = environment.get(ENVIRONMENT)
    candidates = [named] if named else ["/run", environment.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]  # noqa: S108
    kinds = _mounted(mounts)
    mark = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]
    for text in filter(None, candidates):
        path = Path(text)
        if (
            path.is_dir()
            and os.access(path, os.W_OK | os.X_OK)
            and _kind_of(path.resolve(), kinds) in _IN_MEMORY
        ):
            return path / f"skerry-{mark}"
    return None


def _kind_of(path: Path, kinds: Mapping[str, str]) -> str:
    for place in (path, *path.parents):
        if (kind := kinds.get(str(place))) is not None:
            return kind
    return ""


def _mounted(mounts: Path) -> dict[str, str]:
    """Return the type of what is mounted at each place; of several at one place the last counts."""
    found: dict[str, str] = {}
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if separator and len(fields) > 4 and after:
            found[fields[4].replace("\\040", " ")] = after.split()[0]
    return found
