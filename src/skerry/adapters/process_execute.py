"""Runs one command to its end, within a time limit and with little of its output kept."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from skerry.ports.runtime import ExecResult

OUTPUT_BYTES = 4096
TIMED_OUT = 124
NOT_THERE = 127
# How often the end of a command is looked for whose output is held open by what it left behind.
_LOOK_S = 0.1


def find_executable(name: str, *, env: Mapping[str, str], directory: Path) -> tuple[Path | None, bool]:
    """Return (the file that `name` means, whether it may be executed), as execvp(3) would find it.

    A name with a slash is relative to `directory`; any other is looked for along `PATH` of `env`.
    """
    if "/" in name:
        places = [directory / name]
    else:
        places = [directory / place / name for place in env.get("PATH", os.defpath).split(":")]
    files = [place for place in places if name and _is_file(place)]
    for file in files:
        if os.access(file, os.X_OK):
            return file, True
    return (files[0] if files else None), False


def _is_file(place: Path) -> bool:
    """Tell whether a file is there for us; a folder of PATH that we may not enter is passed over, as execvp does."""
    try:
        return place.is_file()
    except OSError:
        return False


def run_command(
    command: tuple[str, ...], *, env: Mapping[str, str], directory: Path, timeout_s: float
) -> ExecResult:
    """Run a command and what it started; all of its process group is gone afterwards. Blocks."""
    name = command[0] if command else ""
    executable, allowed = find_executable(name, env=env, directory=directory)
    if executable is None or not allowed:
        return ExecResult(NOT_THERE, f"{name}: no such command".encode())
    try:
        process = subprocess.Popen(
            command,
            executable=executable,
            env=dict(env),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return ExecResult(NOT_THERE, f"{name}: {error}".encode()[:OUTPUT_BYTES])
    with process:
        return _collect(process, timeout_s)


def _collect(process: subprocess.Popen[bytes], timeout_s: float) -> ExecResult:
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    limit = time.monotonic() + timeout_s
    output = b""
    ended = False
    is_open = True
    try:
        while not ended and (left := limit - time.monotonic()) > 0:
            if is_open:
                select.select([pipe], [], [], min(left, _LOOK_S))
            else:
                time.sleep(min(left, 0.005))
            # Looked at before reading, so that output written just before the end is not missed.
            ended = _has_ended(process.pid)
            is_open, output = _drain(pipe, output)
    finally:
        # Not reaped yet, so the group's number is still its own.
        os.killpg(process.pid, signal.SIGKILL)
        exit_code = process.wait()
    return ExecResult(exit_code if ended else TIMED_OUT, output)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _drain(pipe: int, output: bytes) -> tuple[bool, bytes]:
    """Read what is there now, keep the first bytes; the flag says whether more may come."""
    # Bounded, so that a command that never stops writing does not outrun its time limit.
    for _ in range(64):
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return True, output
        if not data:
            return False, output
        output += data[: OUTPUT_BYTES - len(output)]
    return True, output
