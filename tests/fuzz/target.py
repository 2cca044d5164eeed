"""What a fuzz target is: bytes go in, and either all is as promised or an exception comes out.

A target is a module `tests/fuzz/fuzz_<name>.py` with `TARGET`. It is imported only in the process that runs it, so
that the code below test can be instrumented on its import.
"""

from __future__ import annotations

import importlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Broken(Exception):
    """A promise does not hold."""


class Target(NamedTuple):
    """`run` returns when an input was refused as promised or taken rightly, and raises otherwise.

    `reshape` changes an input along its form, where bytes changed blindly would seldom get past the first check.
    `tokens` are what the input's language is made of. `growth_bytes` is how much memory one input may take.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    reshape: Callable[[bytes, Random], bytes] | None = None
    tokens: tuple[bytes, ...] = ()
    max_bytes: int = 8192
    growth_bytes: int = 64 << 20


def target_names() -> list[str]:
    """Return the names of all targets."""
    return sorted(file.stem.removeprefix("fuzz_") for file in Path(__file__).parent.glob("fuzz_*.py"))


def load_target(name: str) -> Target:
    """Return a target by its name, or by `module:attribute`."""
    module, _, attribute = name.partition(":")
    if not attribute:
        module, attribute = f"tests.fuzz.fuzz_{name}", "TARGET"
    target: Target = getattr(importlib.import_module(module), attribute)
    return target


class Guard:
    """Runs a target's inputs, and holds the memory that each takes against the target's bound."""

    def __init__(self, target: Target) -> None:
        """Run the seeds first: what is loaded or cached once is not an input's."""
        self._target = target
        for seed in target.seeds():
            target.run(seed)
        # A file that Linux lets reset the peak; elsewhere the peak since the seeds must do.
        self._reset_file = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._can_reset = self._reset_peak()
        self._before = _peak_bytes()

    def __call__(self, data: bytes) -> None:
        """Run one input.

        Raises:
            Broken: it took too much memory; and whatever the target raises.
        """
        if self._can_reset:
            self._reset_peak()
            self._before = _peak_bytes()
        self._target.run(data)
        grown = _peak_bytes() - self._before
        if grown > self._target.growth_bytes:
            raise Broken(f"{len(data)} bytes took {grown} bytes of memory")

    def _reset_peak(self) -> bool:
        try:
            return os.write(self._reset_file, b"5") == 1
        except OSError:
            return False


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
