"""A process that writes one delta: `python -m skerry.adapters.delta_worker PARENT LEVEL OUTPUT TARGET [BASE ...]`.

Prints the delta's digest and size as JSON. It runs at the lowest priority, in bounded memory, and ends when the
process that began it has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from pathlib import Path

from skerry.adapters.joined_files import open_joined
from skerry.delivery.delta_encode import encode_delta
from skerry.delivery.words import choose_words

MEMORY_BYTES = 4 << 30
_NICE = 19


def main(arguments: list[str]) -> int:
    """Write the delta."""
    parent, level, output, target, *base = arguments
    _check_wanted(parent)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    state, size = hashlib.sha256(), 0
    with (
        open_joined([Path(one) for one in base]) as old,
        Path(target).open("rb") as new,
        Path(output).open("xb") as file,
    ):

        def sink(piece: bytes) -> None:
            nonlocal size
            _check_wanted(parent)
            file.write(piece)
            state.update(piece)
            size += len(piece)

        encode_delta(base=old, target=new, sink=sink, words=choose_words(), level=int(level))
        file.flush()
        os.fsync(file.fileno())
    sys.stdout.write(json.dumps({"digest": f"sha256:{state.hexdigest()}", "size_bytes": size}))
    return 0


def _check_wanted(parent: str) -> None:
    if os.getppid() != int(parent):
        raise SystemExit("nobody waits for this delta any more")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
