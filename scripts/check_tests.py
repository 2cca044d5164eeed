"""Runs all tests in two halves at the same time: those that mostly wait for processes, and those that compute.

The halves share nothing: everything that uses the container engine is in the first, because two engines cannot share a
network namespace.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = Path(sys.executable).parent / "pytest"
WAITING = ("tests/e2e", "tests/contract")
COMPUTING = ("tests/arch", "tests/unit")
NOTHING_TO_RUN = 5


def main() -> int:
    """Return the exit code of the first half that fails, or 0; further arguments go to pytest."""
    unnamed = [path.name for path in (ROOT / "tests").glob("*/test_*.py") if not _is_named(path)]
    if unnamed:
        sys.exit(f"in neither half: {', '.join(sorted(unnamed))}")
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        computing = subprocess.Popen(
            [PYTEST, *COMPUTING, *sys.argv[1:]], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        waiting = subprocess.run([PYTEST, *WAITING, *sys.argv[1:]], cwd=ROOT, check=False).returncode
        computed = computing.wait()
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
    print(f"== both halves took {time.monotonic() - began:.0f} s", flush=True)
    return next((code for code in (waiting, computed) if code not in (0, NOTHING_TO_RUN)), 0)


def _is_named(path: Path) -> bool:
    return str(path.parent.relative_to(ROOT)) in (*WAITING, *COMPUTING)


if __name__ == "__main__":
    sys.exit(main())
