"""Where pieces of new content stand in what is there already, at whatever place.

Anchors are places that content itself defines: three bytes in a row, each of its class. About one place in 400 is one,
in text, programs and noise alike, and a run of equal bytes has none. The 32 bytes from an anchor on are
looked up by their checksum; what is found is compared byte by byte and extended both ways.

Rules:
- The index has 8 bytes for about 128 bytes of content and at most 32 MiB; beyond, anchors are thinned by their
  checksums, so that old and new content still agree on which ones count.
- Scanning is done by `re`, in C speed; there is one step in Python per anchor.
"""

from __future__ import annotations

import itertools
import re
import zlib
from array import array
from collections.abc import Callable
from typing import NamedTuple

WINDOW_BYTES = 32
_MIN_SLOTS, _MAX_SLOTS = 1 << 10, 1 << 22
_BYTES_PER_SLOT = 128
_OFFSET_BITS = 43
_FINGERPRINT_SHIFT = 12
_REACH_BYTES = 64 << 10
"""How much is compared at a time."""


def _classes() -> bytes:
    # One of every eight neighbouring values, by a Lehmer generator: alphabets as small as prose's have their share.
    state = itertools.accumulate(itertools.repeat(75), lambda value, by: value * by % 65537, initial=7)
    return b"".join(
        b"[" + b"".join(b"\\x%02x" % (8 * group + (next(state) >> 5) % 8) for group in range(32)) + b"]"
        for _ in range(3)
    )


_anchor_re = re.compile(_classes(), re.DOTALL)


class Match(NamedTuple):
    """A run that stands elsewhere as well: at `begins` in what was scanned, `size` bytes, there from `offset` on."""

    begins: int
    size: int
    source: int
    offset: int

    @property
    def ends(self) -> int:
        """Return where it ends in what was scanned."""
        return self.begins + self.size


# (source, offset, size) -> that range, shorter at the end of what is there.
Look = Callable[[int, int, int], bytes]


class AnchorIndex:
    """Remembers where anchors were seen."""

    def __init__(self, expected_bytes: int) -> None:
        slots = _MIN_SLOTS
        while slots < _MAX_SLOTS and slots * _BYTES_PER_SLOT < expected_bytes:
            slots *= 2
        self._mask = slots - 1
        self._slots = array("Q", bytes(8 * slots))
        self._every = max(1, expected_bytes // (slots * _BYTES_PER_SLOT))

    def add(self, content: bytes, source: int, offset: int) -> None:
        """Remember the anchors of content that stands at `offset`; what is known already stays."""
        slots, mask, every = self._slots, self._mask, self._every
        last = len(content) - WINDOW_BYTES
        for found in _anchor_re.finditer(content):
            at = found.start()
            if at > last:
                break
            checksum = zlib.crc32(content[at : at + WINDOW_BYTES])
            if every > 1 and checksum % every:
                continue
            slot = checksum * 0x9E3779B1 >> 7 & mask
            if not slots[slot]:
                place = (offset + at + 1) << 1 | source
                slots[slot] = checksum >> _FINGERPRINT_SHIFT << 44 | place

    def find(self, window: bytes) -> tuple[int, int] | None:
        """Return (source, offset) where a window may stand."""
        checksum = zlib.crc32(window)
        slot = self._slots[checksum * 0x9E3779B1 >> 7 & self._mask]
        if not slot or slot >> 44 != checksum >> _FINGERPRINT_SHIFT:
            return None
        return slot & 1, (slot >> 1 & (1 << _OFFSET_BITS) - 1) - 1


def find_matches(index: AnchorIndex, content: bytes, look: Look) -> list[Match]:
    """Return runs of `content` that stand elsewhere, in order and without overlap."""
    matches: list[Match] = []
    at = free = 0
    diagonal: tuple[int, int] | None = None
    while found := _anchor_re.search(content, at):
        begins = found.start()
        at = begins + 1
        window = content[begins : begins + WINDOW_BYTES]
        if len(window) < WINDOW_BYTES:
            break
        place = index.find(window)
        if place is not None and look(*place, WINDOW_BYTES) != window:
            place = None
        # Behind a small change things mostly go on where they went before.
        if diagonal is not None and (place is None or place[1] - begins != diagonal[1]):
            straight = (diagonal[0], begins + diagonal[1])
            if straight[1] >= 0 and look(*straight, WINDOW_BYTES) == window:
                place = straight
        if place is None:
            continue
        match = _extend(content, begins, free=free, place=place, look=look)
        matches.append(match)
        at = free = match.ends
        diagonal = (match.source, match.offset - match.begins)
    return matches


def _extend(content: bytes, begins: int, *, free: int, place: tuple[int, int], look: Look) -> Match:
    source, offset = place
    ends = begins + WINDOW_BYTES
    step = 256
    while ends < len(content):
        mine = content[ends : ends + step]
        equal = common_prefix(mine, look(source, offset + ends - begins, len(mine)))
        ends += equal
        if equal < len(mine):
            break
        step = min(2 * step, _REACH_BYTES)
    step = 64
    while begins > free and offset:
        size = min(step, begins - free, offset)
        mine, theirs = content[begins - size : begins], look(source, offset - size, size)
        equal = common_prefix(mine[::-1], theirs[::-1])
        begins -= equal
        offset -= equal
        if equal < size:
            break
        step = min(2 * step, _REACH_BYTES)
    return Match(begins, ends - begins, source, offset)


def common_prefix(a: bytes, b: bytes) -> int:
    """Return how many first bytes are equal."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:
        return size
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
