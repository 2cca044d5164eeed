"""Run by scripts/fuzz.py in a process of its own: looks for inputs that break one target, in bounded memory."""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

from tests.fuzz.search import (
    FOUND,
    check_seeds,
    failure_of,
    has_atheris,
    load_instrumented,
    search_at_random,
    search_with_atheris,
)
from tests.fuzz.target import Guard, load_target

# Of a Python with all its libraries and the fuzzer's corpus; an input's own bound is the target's.
_MEMORY_BYTES = 2 << 30


def main() -> int:
    """Search or replay, and return 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--engine", choices=("atheris", "random"))
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    if options.replay:
        return replay(options.target, options.replay)
    options.folder.mkdir(parents=True, exist_ok=True)
    bounds = {"seed": options.seed, "seconds": options.seconds, "inputs": options.inputs}
    is_guided = (options.engine or ("atheris" if has_atheris() else "random")) == "atheris"
    target = load_instrumented(options.target) if is_guided else load_target(options.target)
    tried, found = 0, check_seeds(target, options.folder)
    if found is None and is_guided:
        search_with_atheris(target, options.folder, **bounds)
        raise AssertionError("libFuzzer ends the process")
    if found is None:
        tried, found = search_at_random(target, options.folder, **bounds)
    sys.stdout.write(f"stat::number_of_executed_units: {tried}\n")
    if found is not None:
        sys.stdout.write(found.with_suffix(".txt").read_text(encoding="utf-8"))
    return 0 if found is None else FOUND


def replay(name: str, file: Path) -> int:
    """Run one input, and print what it raises."""
    why = failure_of(Guard(load_target(name)), file.read_bytes())
    sys.stdout.write(why or f"{file.name}: all holds\n")
    return 0 if why is None else FOUND


if __name__ == "__main__":
    sys.exit(main())
