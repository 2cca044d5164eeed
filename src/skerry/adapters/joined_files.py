"""Several files read as one, the first byte of each after the last of the one before."""

from __future__ import annotations

import contextlib
import io
import os
from bisect import bisect_right
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO, cast


class JoinedFiles(io.BufferedIOBase):
    """Reads and seeks only; the files must not change their lengths meanwhile."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = tuple(files)
        self._begins = [0]
        for file in self._files:
            self._begins.append(self._begins[-1] + file.seek(0, os.SEEK_END))
        self._at = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be sought in."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to an offset."""
        begins = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._begins[-1]}[whence]
        self._at = max(0, begins + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, fewer only at the end."""
        rest = max(0, self._begins[-1] - self._at)
        wanted = rest if size is None or size < 0 else min(size, rest)
        pieces: list[bytes] = []
        while wanted:
            number = bisect_right(self._begins, self._at) - 1
            file = self._files[number]
            file.seek(self._at - self._begins[number])
            piece = file.read(min(wanted, self._begins[number + 1] - self._at))
            if not piece:
                raise OSError("a file has become shorter while it was read")
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextlib.contextmanager
def open_joined(paths: Sequence[Path]) -> Generator[BinaryIO]:
    """Open files as one; none of them is a file without content."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        yield files[0] if len(files) == 1 else cast(BinaryIO, JoinedFiles(files))
