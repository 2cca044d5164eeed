"""Fuzz what takes bytes from strangers: each target in a process of its own, for a share of the time.

Guided by coverage where atheris is installed, else by changing seeds at random. What is found lies below
`build/fuzz`, with the command that shows it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "fuzz"
sys.path.insert(0, str(ROOT))

from tests.fuzz.target import target_names  # noqa: E402 - the tests are importable only from here on

# To start, to import and to run the seeds.
_START_S = 120
_FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")


def main() -> int:
    """Fuzz the named targets, or all, and return 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="only these targets")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (default: 60)")
    parser.add_argument("--seed", type=int, help="where chance begins (default: another one each time)")
    parser.add_argument(
        "--engine", choices=("atheris", "random"), help="default: atheris where it is installed"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input again on one target")
    parser.add_argument("--list", action="store_true", help="print the targets' names")
    options = parser.parse_args()
    names: list[str] = target_names()
    if options.list:
        print("\n".join(names))
        return 0
    unknown = [name for name in options.targets if name not in names]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are: {', '.join(names)}")
    if options.replay:
        if len(options.targets) != 1:
            parser.error("--replay needs the one target that the file is for")
        return run_worker(options.targets[0], "--replay", str(options.replay.resolve()))
    engine: str = options.engine or choose_engine()
    seed: int = SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    chosen: list[str] = options.targets or names
    workers = min(len(os.sched_getaffinity(0)), len(chosen))
    seconds: float = options.seconds * workers / len(chosen)
    print(f"fuzz: {engine}, seed {seed}, {seconds:.3g} s for each of {len(chosen)} targets", flush=True)

    def holds(name: str) -> bool:
        return fuzz(name, engine, seed, seconds)

    with ThreadPoolExecutor(workers) as pool:
        held = list(pool.map(holds, chosen))
    found = [name for name, is_held in zip(chosen, held, strict=True) if not is_held]
    if found:
        print(f"fuzz: FOUND something in {', '.join(found)}")
    return 1 if found else 0


def choose_engine() -> str:
    """Return the best engine that is installed, and say so when it is not atheris."""
    if importlib.util.find_spec("atheris") is not None:
        return "atheris"
    print("fuzz: atheris is not installed here; inputs are changed at random, which finds less")
    return "random"


def fuzz(name: str, engine: str, seed: int, seconds: float) -> bool:
    """Fuzz one target, print what came of it, and tell whether all held."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    before = findings(folder)
    log = folder / "log"
    begun = time.monotonic()
    with log.open("wb") as output:
        options = ("--engine", engine, "--seed", str(seed), "--seconds", f"{seconds:.1f}")
        try:
            code = run_worker(name, *options, output=output.fileno(), timeout_s=seconds + _START_S)
        except subprocess.TimeoutExpired:
            code = -1
    text = log.read_text(encoding="utf-8", errors="replace")
    tried = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text)
    covered = re.findall(r" cov: (\d+)", text)
    shown = f"{int(tried[-1]) if tried else 0:,} inputs" + (f", coverage {covered[-1]}" if covered else "")
    new = sorted(findings(folder) - before)
    if code == 0 and not new:
        print(f"fuzz: ok     {name:<14} {shown}, {time.monotonic() - begun:.1f} s", flush=True)
        return True
    lines = [f"fuzz: FOUND  {name}: {shown}; the end of {log.relative_to(ROOT)}:"]
    lines += [f"    {line[:200]}" for line in text.splitlines()[-40:]]
    lines += [f"fuzz: again: {shown_command(name, file)}" for file in new]
    print("\n".join(lines), flush=True)
    return False


def findings(folder: Path) -> set[Path]:
    """Return the inputs that were found below a folder."""
    return {file for pattern in _FINDINGS for file in folder.glob(pattern) if file.suffix != ".txt"}


def shown_command(name: str, file: Path) -> str:
    """Return the command that runs an input again."""
    return f".venv/bin/python scripts/fuzz.py --replay {file.relative_to(ROOT)} {name}"


def run_worker(name: str, *options: str, output: int | None = None, timeout_s: float | None = None) -> int:
    """Run a target's process and return its exit code."""
    # Threads of the linear algebra below numpy would only wait, and count as memory.
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.fuzz.worker", name, "--folder", str(FOLDER / name), *options]
    return subprocess.run(
        command, cwd=ROOT, env=environ, stdout=output, stderr=output, timeout=timeout_s, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
