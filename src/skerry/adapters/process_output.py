"""Reads what a component of the process runtime wrote after a mark: `<inode>:<offset>` in one of its two log files."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from skerry.ports.runtime import Output


def read_output(folder: Path, mark: str, limit: int) -> Output:
    """Return what was written after a mark. The older of the two files comes first; both only grow."""
    inode, _, offset = mark.partition(":")
    begun = (int(inode), int(offset)) if inode.isdigit() and offset.isdigit() else None
    with ExitStack() as stack:
        files = list[tuple[os.stat_result, BinaryIO]]()
        for name in ("log.1", "log"):
            with suppress(OSError):
                opened = stack.enter_context((folder / name).open("rb"))
                files.append((os.fstat(opened.fileno()), opened))
        # The keeper may have renamed one to the other in between: then both are the same.
        if len(files) == 2 and files[0][0].st_ino == files[1][0].st_ino:
            files.pop()
        known = [
            number
            for number, (stat, _) in enumerate(files)
            if begun and stat.st_ino == begun[0] and stat.st_size >= begun[1]
        ]
        pieces, at, left, more = list[bytes](), mark, limit, False
        for number, (stat, file) in enumerate(files[known[0] :] if known else files):
            begin = begun[1] if begun and known and number == 0 else 0
            file.seek(begin)
            pieces.append(file.read(left))
            left -= len(pieces[-1])
            at, more = f"{stat.st_ino}:{begin + len(pieces[-1])}", begin + len(pieces[-1]) < stat.st_size
            if more:
                break
    told = tuple((None, piece) for piece in pieces if piece)
    return Output(told, at, lost=bool(begun and files and not known), more=more)
