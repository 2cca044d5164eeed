"""Reading small files, links and listings below a root directory; what cannot be read is empty.

Rules: every read is bounded, only regular files are opened and never in a way that waits for a device; names that
are no plain ASCII are passed over, so that nothing unprintable gets into a fact.
"""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path

READ_LIMIT_BYTES = 1 << 16
ENTRIES_LIMIT = 4096


class Tree:
    """The files of one machine: `/` for this one, or a recorded tree. Paths are relative: `proc/meminfo`."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.is_real = root == Path("/")

    def at(self, path: str) -> str:
        """Return the path on this machine's disk."""
        return os.path.join(self.root, path)  # noqa: PTH118 (hundreds of times a minute: Path costs more)

    def data(self, path: str, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
        """Return a file's first bytes, or nothing."""
        try:
            file = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except (OSError, ValueError):
            return b""
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return b""
            parts: list[bytes] = []
            left = limit_bytes
            # The kernel hands out /proc in pieces.
            while left > 0 and (part := os.read(file, min(left, 8192))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        except OSError:
            return b""
        finally:
            os.close(file)

    def text(self, path: str, limit_bytes: int = READ_LIMIT_BYTES) -> str:
        """Return a file's text."""
        return self.data(path, limit_bytes).decode(errors="replace")

    def line(self, path: str) -> str:
        """Return a file's first line, stripped, as attributes in sysfs and strings in a device tree are."""
        text = self.text(path, 4096).strip("\0\r\n\t ")
        return text.splitlines()[0].strip("\0 ") if text else ""

    def number(self, path: str, base: int = 10) -> int | None:
        """Return the number a file holds, or None."""
        return parse_number(self.line(path), base)

    def names(self, path: str) -> list[str]:
        """Return what a directory holds, sorted."""
        try:
            with os.scandir(self.at(path)) as entries:
                found = [entry.name for entry in islice(entries, ENTRIES_LIMIT)]
        except (OSError, ValueError):
            return []
        return sorted(name for name in found if name.isascii() and name.isprintable())

    def target(self, path: str) -> str:
        """Return the last part of where a link leads, such as the name of a `driver`."""
        try:
            return os.path.basename(os.readlink(self.at(path)))  # noqa: PTH115, PTH119
        except (OSError, ValueError):
            return ""

    def real(self, path: str) -> str:
        """Return a path with all links followed."""
        try:
            return os.path.realpath(self.at(path))
        except (OSError, ValueError):
            return ""

    def exists(self, path: str) -> bool:
        """Tell whether something is there."""
        return os.path.exists(self.at(path))  # noqa: PTH110


def parse_number(text: str, base: int = 10) -> int | None:
    """Return a number of at most 18 digits, or None: counters of a kernel fit, garbage does not."""
    if len(text) > 20 or not text.isascii():
        return None
    try:
        return int(text, base)
    except ValueError:
        return None
