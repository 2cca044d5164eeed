"""Runs all tests in two halves at the same time: those that mostly wait for other processes, and those that compute.

The halves share nothing: everything that uses the container engine or network namespaces is in the first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = Path(sys.executable).parent / "pytest"
WAITING = "e2e or podman or netns"
NOTHING_TO_RUN = 5


def main() -> int:
    """Return the exit code of the first half that fails, or 0; further arguments go to pytest."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        computing = subprocess.Popen(
            [PYTEST, "-m", f"not ({WAITING})", *sys.argv[1:]],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        waiting = subprocess.run([PYTEST, "-m", WAITING, *sys.argv[1:]], cwd=ROOT, check=False).returncode
        computed = computing.wait()
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
    print(f"== both halves took {time.monotonic() - began:.0f} s", flush=True)
    return next((code for code in (waiting, computed) if code not in (0, NOTHING_TO_RUN)), 0)


if __name__ == "__main__":
    sys.exit(main())
