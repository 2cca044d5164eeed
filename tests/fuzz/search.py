"""Looks for inputs that break a target: guided by coverage with atheris, else by changing the seeds at random.

What is found is written to a file of its own below the target's folder.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from tests.fuzz.mutation import mutate_bytes
from tests.fuzz.target import Broken, Guard, Target, load_target

INPUT_TIMEOUT_S = 10
FOUND = 77
"""The exit code of a process that found something; libFuzzer's own too."""


def has_atheris() -> bool:
    """Tell whether the fuzzer guided by coverage is installed."""
    return importlib.util.find_spec("atheris") is not None


def load_instrumented(name: str) -> Target:
    """Return a target, with our code instrumented on its import."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["skerry"]):
        return load_target(name)


def change(target: Target, data: bytes, random: Random) -> bytes:
    """Return a changed input: along its form half of the times, where the target knows how."""
    if target.reshape is not None and random.random() < 0.5:
        return target.reshape(data, random)[: target.max_bytes]
    return mutate_bytes(data, random, tokens=target.tokens, max_bytes=target.max_bytes)


def check_seeds(target: Target, folder: Path) -> Path | None:
    """Return the file of a seed that breaks the target, if one does: nothing else is worth looking for then."""
    for data in target.seeds():
        if (why := failure_of(target.run, data)) is not None:
            return write_finding(folder, data, why)
    return None


def search_with_atheris(target: Target, folder: Path, *, seed: int, seconds: float, inputs: int) -> None:
    """Run libFuzzer; it ends the process by itself, with a code other than 0 when it found something.

    What Python raises is kept and told by us, as by the other search; libFuzzer keeps what it alone sees: crashes of
    native code, and inputs that take too long or too much memory.
    """
    atheris: Any = importlib.import_module("atheris")
    guard, tried = Guard(target), itertools.count(1)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for content in target.seeds():
        (corpus / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)

    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return change(target, data, random)[:max_size]

    def run(data: bytes) -> None:
        number = next(tried)
        try:
            guard(data)
        except Exception:
            why = traceback.format_exc()
            write_finding(folder, data, why)
            sys.stdout.write(f"stat::number_of_executed_units: {number}\n{why}")
            sys.stdout.flush()
            os._exit(FOUND)

    options = [
        f"-seed={seed}", f"-max_len={target.max_bytes}", f"-timeout={INPUT_TIMEOUT_S}", "-rss_limit_mb=1024",
        f"-artifact_prefix={folder}/", "-len_control=0", "-print_final_stats=1", f"-runs={inputs or -1}",
    ]  # fmt: skip
    if seconds:
        options.append(f"-max_total_time={max(1, round(seconds))}")
    if target.tokens:
        options.append(f"-dict={_write_dictionary(target, folder)}")
    atheris.Setup(["fuzz", *options, str(corpus)], run, custom_mutator=mutate)
    atheris.Fuzz()


def _write_dictionary(target: Target, folder: Path) -> Path:
    file = folder / "dictionary"
    lines = ['"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in target.tokens]
    file.write_text("".join(lines), encoding="ascii")
    return file


def search_at_random(
    target: Target, folder: Path, *, seed: int, seconds: float, inputs: int
) -> tuple[int, Path | None]:
    """Return how many inputs were tried, and the file of what was found."""
    guard, seeds, random = Guard(target), target.seeds(), Random(seed)
    ends = time.monotonic() + seconds if seconds else float("inf")
    tried = 0
    while (not inputs or tried < inputs) and time.monotonic() < ends:
        data = random.choice(seeds)
        # A walk from a seed: some changes are of use only after others.
        for _ in range(random.choice((1, 2, 4, 8))):
            data = change(target, data, random)
            tried += 1
            if (why := failure_of(guard, data)) is not None:
                return tried, write_finding(folder, data, why)
    return tried, None


def failure_of(run: Callable[[bytes], None], data: bytes) -> str | None:
    """Return the traceback of what an input raises, or `None` when all holds."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise Broken(f"an input took more than {INPUT_TIMEOUT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, INPUT_TIMEOUT_S)
    try:
        run(data)
    except Exception:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return None


def write_finding(folder: Path, data: bytes, why: str) -> Path:
    """Keep an input and why it was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
    file.write_bytes(data)
    file.with_suffix(".txt").write_text(why, encoding="utf-8")
    return file
