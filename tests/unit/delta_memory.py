"""Run by test_delta_memory.py in a process of its own: applies a delta and prints how far memory grew, in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

from skerry.delivery.delta_apply import DeltaApplier
from skerry.delivery.delta_format import read_header
from skerry.delivery.words import choose_words


def kib_of(field: str) -> int:
    """Return a line of this process's status: `VmRSS` now, `VmHWM` at most since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(field)


def main(which: str, base: str, delta: str, output: str) -> None:
    """Apply and print."""
    words = choose_words(numpy=which == "numpy")
    with Path(base).open("rb") as old, Path(delta).open("rb") as source, Path(output).open("w+b") as new:
        header, header_bytes = read_header(source)
        applier = DeltaApplier(header, base=old, output=new, words=words)
        Path("/proc/self/clear_refs").write_text("5")
        before = kib_of("VmRSS")
        for _ in applier.run(source, applier.begin(header_bytes)):
            pass
    sys.stdout.write(f"{(kib_of('VmHWM') - before) * 1024}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
