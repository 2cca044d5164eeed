"""DeltaMaker: makes deltas beside the process that asks, so that it stays responsive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class MadeDelta(msgspec.Struct, frozen=True):
    """A delta in a file, which belongs to whoever asked for it."""

    file: Path
    digest: str
    size_bytes: int


class DeltaMaker(Protocol):
    """Makes as many deltas at a time as it is asked for; every one has a time limit and bounded memory."""

    async def make(self, base: Sequence[str], target: str) -> MadeDelta:
        """Make the delta from blobs, one after the other, to a blob.

        Raises:
            Missing: one of the blobs is not there.
            Unavailable: no room, too slow, or the maker died.
        """
        ...
