"""Runs all tests in three parts at the same time: most of them wait for other processes, and few compute.

The parts share nothing: everything that uses the container engine is in the first. Tests of real engines, namespaces
and processes on a machine that others load as well may fail for its sake: a few that failed run once more, by
themselves, and are named as unsteady when they pass then. What fails twice has failed.
"""

from __future__ import annotations

import json
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
NOTHING_TO_RUN, FAILED = 5, 1
MOST_AGAIN = 5
"""More than this fail because of what was changed, and not because of the machine."""


def main() -> int:
    """Return the exit code of the first part that fails, or 0; further arguments go to pytest."""
    began = time.monotonic()
    with ExitStack() as stack:
        places = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))) for _ in PARTS
        ]
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in PARTS[1:])]
        parts = [_begin(*given) for given in zip(PARTS, outputs, places, strict=True)]
        codes: list[int] = []
        for process, output in zip(parts, outputs, strict=True):
            codes.append(process.wait())
            if output is not None:
                output.seek(0)
                sys.stdout.buffer.write(output.read())
                sys.stdout.flush()
        failed = sorted({test for place in places for test in failed_tests(place)})
    print(f"== all parts took {time.monotonic() - began:.0f} s", flush=True)
    worst = next((code for code in codes if code not in (0, NOTHING_TO_RUN)), 0)
    return _run_again(failed) if worst == FAILED and 0 < len(failed) <= MOST_AGAIN else worst


def failed_tests(place: Path) -> list[str]:
    """Return the tests that failed in a run that had this place."""
    file = place / "cache" / "v" / "cache" / "lastfailed"
    return list(json.loads(file.read_text())) if file.exists() else []


def _run_again(failed: list[str]) -> int:
    print("== once more, by themselves:", *failed, sep="\n   ", flush=True)
    code = subprocess.run([PYTEST, *failed], cwd=ROOT, check=False).returncode
    if code == 0:
        print("== UNSTEADY: these failed once, and passed by themselves:", *failed, sep="\n   ", flush=True)
    return code


def files_of(part: str) -> list[str]:
    """Return the files that may hold tests of a part: to read all tests takes half a minute, and a part has few."""
    markers = MARKERS[PARTS.index(part)]
    marks = tuple(f"mark.{marker}" for marker in markers)
    files = sorted(path for path in TESTS.rglob("test_*.py") if markers)
    return [str(path.relative_to(ROOT)) for path in files if any(mark in path.read_text() for mark in marks)]


def _begin(part: str, output: BinaryIO | None, place: Path) -> subprocess.Popen[bytes]:
    # Files of its own: one pytest that tidies up after another may meet what a third still writes.
    apart = ["-o", f"cache_dir={place / 'cache'}", f"--basetemp={place / 'files'}"]
    return subprocess.Popen(
        [PYTEST, "-m", part, *apart, *sys.argv[1:], *files_of(part)],
        cwd=ROOT,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main())
