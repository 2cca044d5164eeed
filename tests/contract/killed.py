"""Runs a program until it has printed enough, and kills it with SIGKILL."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_program = Path(__file__).with_name("crashing.py")


def run_and_kill(what: str, path: Path, *, lines: int, linger_s: float) -> list[str]:
    """Return the lines that `crashing.py` printed before it was killed, some time after the first `lines`."""
    with subprocess.Popen(
        [sys.executable, str(_program), what, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(lines)]
        time.sleep(linger_s)  # so that the kill falls anywhere in its work
        process.kill()
        printed = b"".join(first) + process.stdout.read()
    whole = printed[: printed.rfind(b"\n") + 1]
    return whole.decode().splitlines()
