"""Runs a program whose time and output are bounded, and leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_look_every_s = 0.05


class Outcome(NamedTuple):
    """What a program wrote to its standard output, or in one line why that is not to be used."""

    output: bytes
    failure: str = ""


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    limit_s: float,
    limit_bytes: int,
    folder: Path = Path("/"),
) -> Outcome:
    """Run a program to its end, without a shell, input or terminal, in a session that ends as a whole."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Outcome(b"", f"cannot be run: {getattr(error, 'strerror', None) or error}")
    assert process.stdout is not None
    try:
        outcome = _collect(process.pid, process.stdout.fileno(), limit_s, limit_bytes)
    finally:
        # Whatever it started may still hold the pipe: all of its session goes, before its number can be another's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        process.stdout.close()
    if outcome.failure or not status:
        return outcome
    return Outcome(b"", f"ended with status {status}" if status > 0 else f"killed by signal {-status}")


def _collect(pid: int, file: int, limit_s: float, limit_bytes: int) -> Outcome:
    """Read until the program has ended, which leaves it to be waited for."""
    until = time.monotonic() + limit_s
    os.set_blocking(file, False)
    output = bytearray()
    is_open = True
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while True:
            # Its end may leave the pipe open in a child's hands, and a closed pipe may come before its end.
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            left = until - time.monotonic()
            pause = 0 if ended else max(0, min(left, _look_every_s))
            if is_open:
                selector.select(pause)
                is_open = _drain(file, output, limit_bytes)
                if len(output) > limit_bytes:
                    return Outcome(b"", f"wrote more than {limit_bytes >> 10} KiB")
            else:
                time.sleep(pause)
            if ended:
                return Outcome(bytes(output))
            if left <= 0:
                return Outcome(b"", f"took longer than {limit_s:g} s")


def _drain(file: int, output: bytearray, limit_bytes: int) -> bool:
    """Take what is there; tell whether more may come."""
    while len(output) <= limit_bytes:
        try:
            part = os.read(file, limit_bytes + 1 - len(output))
        except BlockingIOError:
            return True
        if not part:
            return False
        output += part
    return True
