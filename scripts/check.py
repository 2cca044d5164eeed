"""Everything CI runs, step by step, up to the first failure."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTHON = sys.executable

STEPS: dict[str, tuple[str, ...]] = {
    "lint": (f"{BIN}/ruff", "check", "."),
    "format": (f"{BIN}/ruff", "format", "--check", "."),
    "mypy": (f"{BIN}/mypy",),
    "pyright": (f"{BIN}/pyright", "--warnings", "--project", "pyproject.toml"),
    "layers": (f"{BIN}/lint-imports", "--no-logo"),
    "tests": (PYTHON, "scripts/check_tests.py"),
    "fuzz": (PYTHON, "scripts/fuzz.py", "--seconds", "14", "--seed", "1"),
    "demo": (PYTHON, "scripts/demo.py"),
    "docs": (
        f"{BIN}/sphinx-build",
        "-q",
        "-W",
        "--keep-going",
        "-E",
        "-b",
        "html",
        "docs",
        "docs/_build/html",
    ),
    "wheel": (PYTHON, "scripts/check_wheel.py"),
}


def main() -> int:
    """Run the steps and return the exit code of the first that fails, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="only these steps")
    parser.add_argument("--list", action="store_true", help="print the steps' names")
    options = parser.parse_args()
    if options.list:
        print("\n".join(STEPS))
        return 0
    unknown = [name for name in options.steps if name not in STEPS]
    if unknown:
        parser.error(f"no step {', '.join(unknown)}; there are: {', '.join(STEPS)}")
    return run_steps(options.steps or list(STEPS))


def run_steps(names: list[str]) -> int:
    """Run steps in order; print how long each took, and a summary at the end."""
    environ = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    if environ.get("CI", "").lower() in ("1", "true", "yes"):
        environ["SKERRY_FAIL_ON_SKIP"] = "1"
        environ["HYPOTHESIS_PROFILE"] = "ci"
    summary: list[str] = []
    code = 0
    for name in names:
        print(f"\n== {name}: {' '.join(_shown(part) for part in STEPS[name])}", flush=True)
        begun = time.monotonic()
        code = subprocess.run(STEPS[name], cwd=ROOT, env=environ, check=False).returncode
        line = f"{'ok    ' if code == 0 else 'FAILED'} {name:<10} {time.monotonic() - begun:7.1f} s"
        print(f"== {line}", flush=True)
        summary.append(line)
        if code:
            break
    print("\n" + "\n".join(summary))
    return code if 0 <= code < 256 else 1


def _shown(part: str) -> str:
    return part.removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    sys.exit(main())
