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


def fleet_processes(folder: Path) -> dict[int, tuple[str, ...]]:
    """Return the living processes of a folder's fleet, by number: hub, agents, keepers, applications.

    Others that work in the folder or name it, such as a person's shell or pager, are not among them.
    """
    found = processes_of(folder)
    return {pid: words for pid, words in found.items() if _is_role(words) or _is_application(pid, folder)}


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


def _is_role(words: tuple[str, ...]) -> bool:
    is_keeper = any(word.endswith("/process_keeper.py") for word in words)
    return is_keeper or runs(words, "agent", "run") or runs(words, "hub", "serve")


def runs(words: tuple[str, ...], noun: str, verb: str) -> bool:
    """Tell whether the words of a command line are `skerry NOUN VERB`, run by a Python interpreter."""
    return words[1:5] == ("-m", "skerry", noun, verb)


def _is_application(pid: int, folder: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(entry.startswith(b"SKERRY_DATA=" + os.fsencode(folder) + b"/") for entry in environment)
