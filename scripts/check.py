"""Everything CI runs, step by step, up to the first failure."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

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


# Steps of one group run at the same time: they share nothing, and none of them is cut short by a clock.
TOGETHER: tuple[tuple[str, ...], ...] = (("mypy", "pyright"), ("demo", "docs"))


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
    """Run steps in order, some together; print how long each took, and a summary at the end."""
    environ = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    if environ.get("CI", "").lower() in ("1", "true", "yes"):
        environ["SKERRY_FAIL_ON_SKIP"] = "1"
        environ["HYPOTHESIS_PROFILE"] = "ci"
    # What is compiled once, such as the tests by pytest, is kept: the parts of a run would each do it anew.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    summary: list[str] = []
    code = 0
    for group in grouped(names):
        code = _run_group(group, environ, summary)
        if code:
            break
    print("\n" + "\n".join(summary))
    return code if 0 <= code < 256 else 1


def grouped(names: list[str]) -> list[tuple[str, ...]]:
    """Return the steps in order, those that follow one another and may run together as one."""
    groups: list[tuple[str, ...]] = []
    for name in names:
        if groups and any({*groups[-1], name} <= set(allowed) for allowed in TOGETHER):
            groups[-1] = (*groups[-1], name)
        else:
            groups.append((name,))
    return groups


def _run_group(group: tuple[str, ...], environ: dict[str, str], summary: list[str]) -> int:
    """Run steps at the same time, show the output of one after the other, and return the first bad exit code, or 0."""
    with ExitStack() as stack, ThreadPoolExecutor(len(group)) as pool:
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in group[1:])]
        runs = [
            pool.submit(_run_step, name, environ, file) for name, file in zip(group, outputs, strict=True)
        ]
        codes: list[int] = []
        for name, output, run in zip(group, outputs, runs, strict=True):
            print(f"\n== {name}: {' '.join(_shown(part) for part in STEPS[name])}", flush=True)
            code, took_s = run.result()
            if output is not None:
                output.seek(0)
                sys.stdout.buffer.write(output.read())
            line = f"{'ok    ' if code == 0 else 'FAILED'} {name:<10} {took_s:7.1f} s"
            print(f"== {line}", flush=True)
            summary.append(line)
            codes.append(code)
    return next((code for code in codes if code), 0)


def _run_step(name: str, environ: dict[str, str], output: BinaryIO | None) -> tuple[int, float]:
    """Return a step's exit code, and how long it took in seconds."""
    begun = time.monotonic()
    error = None if output is None else subprocess.STDOUT
    done = subprocess.run(STEPS[name], cwd=ROOT, env=environ, check=False, stdout=output, stderr=error)
    return done.returncode, time.monotonic() - begun


def _shown(part: str) -> str:
    return part.removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    sys.exit(main())
