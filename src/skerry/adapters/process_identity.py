"""Tells processes apart for certain: a number is reused, (boot, number, start time) is not.

Rules:
- Nothing is signalled whose start time, or tie to the instance, was not read just before.
- A process that may be a stranger's is left alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

_PROC = Path("/proc")


class ProcessMark(msgspec.Struct, frozen=True):
    """One process of this boot: its number and its start in clock ticks since boot."""

    pid: int
    start: int


class ProcessStat(msgspec.Struct, frozen=True):
    """The part of proc_pid_stat(5) that is needed here."""

    pid: int
    state: str
    session: int
    start: int


@cache
def boot_id() -> str:
    """Return the kernel's random id of this boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read_stat(pid: int) -> ProcessStat | None:
    """Return what the kernel says of a process, or None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in field 2 may hold spaces and brackets.
    fields = text.rpartition(b")")[2].split()
    return ProcessStat(pid, fields[0].decode(), int(fields[3]), int(fields[19]))


def is_alive(mark: ProcessMark) -> bool:
    """Tell whether this very process runs; a zombie does not."""
    stat = read_stat(mark.pid)
    return stat is not None and stat.start == mark.start and stat.state not in "ZX"


def signal_process(mark: ProcessMark, number: int) -> bool:
    """Send a signal to this very process; False when it is gone or out of reach."""
    try:
        # The descriptor pins the process, so that its number cannot pass on between check and signal.
        fd = os.pidfd_open(mark.pid)
    except ProcessLookupError:
        return False
    except OSError:
        # Kernels before 5.3 have no such call; the gap is then some microseconds.
        return is_alive(mark) and _kill(mark.pid, number)
    try:
        if not is_alive(mark):
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def kill_leftovers(child: ProcessMark, pipe: int, directory: Path | None) -> int:
    """Kill what is left of a component whose keeper is gone, and return how many were killed.

    `child` led its session. While it lives, all of the session is its own. After that the session's number
    may have passed to a stranger, so a member counts only if it still has the component's log pipe open or
    works in its directory.
    """
    leader = read_stat(child.pid)
    if leader is not None and leader.start != child.start:
        return 0
    leads = leader is not None
    killed = 0
    for stat in _processes():
        if stat.session != child.pid or stat.start < child.start or stat.state in "ZX":
            continue
        if leads or _is_tied(stat.pid, pipe, directory):
            killed += signal_process(ProcessMark(stat.pid, stat.start), signal.SIGKILL)
    return killed


def find_script(scripts: frozenset[str], argument: str) -> ProcessMark | None:
    """Return the process that runs one of these scripts with `argument`, by looking at all of them."""
    for stat in _processes():
        try:
            arguments = (_PROC / str(stat.pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if os.fsencode(argument) in arguments:
            names = {os.fsdecode(os.path.basename(part)) for part in arguments}
            if names & scripts:
                return ProcessMark(stat.pid, stat.start)
    return None


def _processes() -> Iterator[ProcessStat]:
    for name in os.listdir(_PROC):
        if name.isdigit():
            stat = read_stat(int(name))
            if stat is not None:
                yield stat


def _is_tied(pid: int, pipe: int, directory: Path | None) -> bool:
    place = _PROC / str(pid)
    try:
        if directory is not None and (place / "cwd").readlink() == directory:
            return True
        return any(fd.readlink() == Path(f"pipe:[{pipe}]") for fd in (place / "fd").iterdir())
    except OSError:
        return False


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True
