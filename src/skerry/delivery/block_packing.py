"""Puts segments together to blocks, within the limits of the format.

A block ends when what is coded in it reaches about 1 MiB; copies ride along, up to 16 MiB, and cost a few bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from skerry.delivery.delta_format import COPY, OLD, OUTPUT, Reference, Segment, encode_block
from skerry.delivery.delta_limits import (
    MAX_BLOCK_BYTES,
    MAX_CODED_BYTES,
    MAX_REFERENCE_BYTES,
    MAX_REFERENCES,
    MAX_SEGMENTS,
)


class BlockPacker:
    """Takes segments in order, and gives blocks to `sink`."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._begins = 0
        self._start()

    def _start(self) -> None:
        self._segments: list[Segment] = []
        self._seen = hashlib.sha256()
        self._size = self._coded = self._referred = self._references = 0

    def add(self, segment: Segment, content: bytes) -> None:
        """Add a segment that makes `content`."""
        if self._is_too_much(segment):
            self.flush()
        last = self._segments[-1] if self._segments else None
        if segment.operation != COPY:
            self._coded += segment.size
            self._referred += sum(reference.size for reference in segment.references)
            self._references += len(segment.references)
        elif last is not None and last.operation == COPY and _goes_on(last, segment):
            self._segments.pop()
            source, offset, size = last.references[0]
            merged = (Reference(source, offset, size + segment.size),)
            segment = Segment(COPY, last.size + segment.size, merged)
        self._segments.append(segment)
        self._seen.update(content)
        self._size += len(content)

    def _is_too_much(self, segment: Segment) -> bool:
        begins = self._begins
        if any(source == OUTPUT and offset + size > begins for source, offset, size in segment.references):
            return True
        if self._size + segment.size > MAX_BLOCK_BYTES or len(self._segments) == MAX_SEGMENTS:
            return True
        if segment.operation == COPY:
            return False
        referred = sum(reference.size for reference in segment.references)
        return (
            self._coded + segment.size > MAX_CODED_BYTES
            or self._referred + referred > MAX_REFERENCE_BYTES
            or self._references + len(segment.references) > MAX_REFERENCES
        )

    def flush(self) -> None:
        """End the block that is open."""
        if self._size:
            self._sink(encode_block(self._size, self._seen.digest(), self._segments))
            self._begins += self._size
            self._start()


def _goes_on(last: Segment, segment: Segment) -> bool:
    source, offset, size = last.references[0]
    following = segment.references[0]
    return following.source == source and following.offset == offset + size


def copy_of(source: int, offset: int, size: int) -> Segment:
    """Return a segment that copies."""
    return Segment(COPY, size, (Reference(source, offset, size),))


def copy_of_old(offset: int, size: int) -> Segment:
    """Return a segment that copies from the old file."""
    return copy_of(OLD, offset, size)
