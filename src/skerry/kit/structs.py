"""Makes msgspec's types ready before threads begin.

msgspec works out what a struct consists of when it is first read. Where several threads read values of one type for the
first time at once, one of them may use what another has not finished, which ends the process (seen with msgspec 0.22).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def settle_structs() -> int:
    """Have every struct that was imported worked out, and return how many; to be called while there is one thread."""
    settled = 0
    for kind in set(_descendants(msgspec.Struct)):
        try:
            msgspec.json.Decoder(kind)
        except (TypeError, NameError):
            continue  # generic, or of things that no document holds: nobody reads it
        settled += 1
    return settled


def _descendants(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
