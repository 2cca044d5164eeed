"""Looks at real processes, so that a test can count what it started and prove that it left nothing."""

from __future__ import annotations

import os
from pathlib import Path


def processes_of(place: Path) -> dict[int, tuple[str, ...]]:
    """Return the living processes that work in `place` or below, or name it in an argument, by number."""
    found: dict[int, tuple[str, ...]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            arguments = _arguments(int(entry.name), place)
            if arguments is not None:
                found[int(entry.name)] = arguments
    return found


def is_running(pid: int) -> bool:
    """Tell whether a process with that number runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def _arguments(pid: int, place: Path) -> tuple[str, ...] | None:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        works_in = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
    if not is_running(pid) or not (works_in.is_relative_to(place) or str(place) in line):
        return None
    return tuple(line.rstrip("\0").split("\0"))
