"""Run by test_delta_files.py in a process of its own: applies a delta and is killed when its nth block begins."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

from skerry.adapters.delta_files import DeltaJob, apply_delta_file
from skerry.delivery.words import choose_words
from skerry.kit.digests import Digest


class Deadly(io.BytesIO):
    """A delta whose reader dies at a place, and that writes down from where to where it was read."""

    def __init__(self, content: bytes, offset: int, dies_at: int, log: Path) -> None:
        super().__init__(content)
        self.seek(offset)
        self._dies_at = dies_at
        self._log = log

    def read(self, size: int | None = -1, /) -> bytes:
        begins = self.tell()
        if begins >= self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        content = super().read(size)
        with self._log.open("a") as log:
            log.write(f"{begins} {self.tell()}\n")
        return content


def main(folder: str, digest: str, size: str, dies_at: str) -> None:
    """Apply `delta` to `base`, both in the folder."""
    place = Path(folder)
    content = (place / "delta").read_bytes()
    job = DeltaJob((place / "base",), place / "target", Digest(digest), int(size))
    apply_delta_file(
        job,
        lambda offset: Deadly(content, offset, int(dies_at), place / "log"),
        words=choose_words(numpy=False),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
