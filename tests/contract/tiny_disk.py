"""A disk of a few megabytes, for tests of what happens when it is full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tiny_disk(where: Path, *, size_bytes: int) -> Generator[Path]:
    """Mount a tmpfs; the test is skipped where that is not allowed."""
    where.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(where)]
    if (done := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode != 0:
        pytest.skip(f"no tmpfs here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; removing the returned file makes room again."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size_bytes in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size_bytes)
            except OSError:
                continue
    return ballast
