"""Runs all tests in three parts at the same time: most of them wait for other processes, and few compute.

The parts share nothing: everything that uses the container engine is in the first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
PYTEST = Path(sys.executable).parent / "pytest"
TESTS = ROOT / "tests"
PARTS = ("podman or netns", "e2e and not (podman or netns)", "not (e2e or podman or netns)")
"""Marker expressions; every test fits exactly one."""
MARKERS = (("podman", "netns"), ("e2e",), ())
"""Of each part: markers, one of which is named in every file with a test of it; none for files of any kind."""
NOTHING_TO_RUN = 5


def main() -> int:
    """Return the exit code of the first part that fails, or 0; further arguments go to pytest."""
    began = time.monotonic()
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in PARTS[1:]]
        others = [_begin(part, output) for part, output in zip(PARTS[1:], outputs, strict=True)]
        codes = [_begin(PARTS[0], None).wait()]
        for process, output in zip(others, outputs, strict=True):
            codes.append(process.wait())
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    print(f"== all parts took {time.monotonic() - began:.0f} s", flush=True)
    return next((code for code in codes if code not in (0, NOTHING_TO_RUN)), 0)


def files_of(part: str) -> list[str]:
    """Return the files that may hold tests of a part: to read all tests takes half a minute, and a part has few."""
    markers = MARKERS[PARTS.index(part)]
    marks = tuple(f"mark.{marker}" for marker in markers)
    files = sorted(path for path in TESTS.rglob("test_*.py") if markers)
    return [str(path.relative_to(ROOT)) for path in files if any(mark in path.read_text() for mark in marks)]


def _begin(part: str, output: BinaryIO | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PYTEST, "-m", part, *sys.argv[1:], *files_of(part)],
        cwd=ROOT,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main())
