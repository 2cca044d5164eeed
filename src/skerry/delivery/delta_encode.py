"""Writes a delta from an old file to a new one.

Tensors that both files have by name are coded as numbers at their places; all else is searched for in the old file and
in what was already written, wherever it stands, and packed after what was found.

Rules:
- Memory is bounded: the index of anchors (8 bytes for 128 of both files, at most 32 MiB), some pieces of 1 MiB, and
  what zstd takes for its tables, about 60 MiB at level 19.
- The same files, level and versions of the libraries give the same delta.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from skerry.delivery.anchors import WINDOW_BYTES, AnchorIndex, Match, common_prefix, find_matches
from skerry.delivery.block_packing import BlockPacker, copy_of
from skerry.delivery.delta_format import (
    OLD,
    OPERATION_NAMES,
    OUTPUT,
    Header,
    Reference,
    Segment,
    encode_header,
)
from skerry.delivery.delta_limits import MAX_CODED_BYTES, MAX_FILE_BYTES, PIECE_BYTES
from skerry.delivery.reference_choice import choose_references
from skerry.delivery.segment_choice import Base, SegmentChooser
from skerry.delivery.tensor_pairs import Region, plan_regions
from skerry.delivery.words import Words
from skerry.kit.errors import Rejected

# A run that is copied by itself; shorter ones zstd refers to as cheaply.
_LONG_BYTES = 256 << 10
_GUESS_BYTES = 4 << 10
# Old words may begin and end by so much within what is compared to them.
_EDGE_BYTES = 4096
# What zstd leaves so much of may be numbers.
_POORLY_PACKED = 0.6


class DeltaSummary(msgspec.Struct, frozen=True):
    """What a delta is made of, by the names of operations: bytes of output, and what they took."""

    header: Header
    delta_bytes: int
    output_bytes: dict[str, int]
    payload_bytes: dict[str, int]


class _Measured(NamedTuple):
    size: int
    sha256: bytes


def encode_delta(
    *, base: BinaryIO, target: BinaryIO, sink: Callable[[bytes], object], words: Words, level: int = 19
) -> DeltaSummary:
    """Give the delta from `base` to `target`, both seekable, to `sink` piece by piece.

    Raises:
        Rejected: a file is too large (`delta.too_large`).
    """
    old, new = _measure(base), _measure(target)
    if max(old.size, new.size) > MAX_FILE_BYTES:
        raise Rejected("delta.too_large", f"a delta is of files of at most {MAX_FILE_BYTES} bytes")
    header = Header(old.size, old.sha256, new.size, new.sha256)
    counting = _Counting(sink)
    counting(encode_header(header))
    encoder = _Encoder(
        header, base=base, target=target, sink=counting, chooser=SegmentChooser(words, level=level)
    )
    encoder.run()
    return DeltaSummary(header, counting.total, encoder.output_bytes, encoder.payload_bytes)


class _Counting:
    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self.total = 0

    def __call__(self, piece: bytes) -> None:
        self.total += len(piece)
        self._sink(piece)


def _measure(file: BinaryIO) -> _Measured:
    file.seek(0)
    seen, size = hashlib.sha256(), 0
    while piece := file.read(PIECE_BYTES):
        seen.update(piece)
        size += len(piece)
    return _Measured(size, seen.digest())


class _Encoder:
    def __init__(
        self,
        header: Header,
        *,
        base: BinaryIO,
        target: BinaryIO,
        sink: Callable[[bytes], object],
        chooser: SegmentChooser,
    ) -> None:
        self._header = header
        self._files = (base, target)
        self._packer = BlockPacker(sink)
        self._chooser = chooser
        self._index = AnchorIndex(header.base_size + header.target_size)
        # Where the piece before came from, in places of the new file.
        self._before: Match | None = None
        # Up to where the new file may be referred to.
        self._limit = 0
        self.output_bytes = dict.fromkeys(OPERATION_NAMES, 0)
        self.payload_bytes = dict.fromkeys(OPERATION_NAMES, 0)

    def run(self) -> None:
        for at, piece in self._windows():
            self._index.add(piece, OLD, at)
        for region in plan_regions(*self._files, self._header):
            if region.base_offset is None:
                self._code_stretch(region)
            else:
                self._code_tensor(region, region.base_offset)
        self._packer.flush()

    def _windows(self) -> Iterator[tuple[int, bytes]]:
        """Yield the old file in pieces that overlap by less than a window."""
        at = 0
        while at < self._header.base_size:
            yield at, self._look(OLD, at, MAX_CODED_BYTES + WINDOW_BYTES - 1)
            at += MAX_CODED_BYTES

    def _look(self, source: int, offset: int, size: int) -> bytes:
        file = self._files[source]
        file.seek(offset)
        return file.read(size)

    def _find(self, source: int, offset: int, size: int) -> bytes:
        """Return what a reference may be to: of the new file, only what comes before the stretch looked at."""
        return self._look(source, offset, size if source == OLD else max(0, min(size, self._limit - offset)))

    def _add(self, segment: Segment, content: bytes) -> None:
        name = OPERATION_NAMES[segment.operation]
        self.output_bytes[name] += segment.size
        self.payload_bytes[name] += len(segment.payload)
        self._packer.add(segment, content)

    def _code_tensor(self, region: Region, base_offset: int) -> None:
        at = 0
        while at < region.size:
            size = min(MAX_CODED_BYTES, region.size - at)
            content = self._look(OUTPUT, region.begins + at, size)
            old = self._look(OLD, base_offset + at, size)
            if content == old:
                self._add(copy_of(OLD, base_offset + at, size), content)
            else:
                self._add(self._smallest(content, region.kind, Base(base_offset + at, old)), content)
            at += size
        self._before = Match(region.begins, region.size, OLD, base_offset)

    def _smallest(self, content: bytes, kind: str, base: Base) -> Segment:
        """Return a changed piece of a tensor: few words changed are cheaper as bytes, many as numbers."""
        numbers = self._chooser.code_numbers(content, kind, base)
        reference = Reference(OLD, base.offset, len(content))
        if numbers is not None and self._chooser.is_hopeless(content, base.content, len(numbers.payload)):
            return numbers
        packed = self._chooser.code_bytes(content, (reference,), base.content)
        return numbers if numbers is not None and len(numbers.payload) <= len(packed.payload) else packed

    def _code_stretch(self, region: Region) -> None:
        """Code what is no tensor that both files have."""
        at, ends = region.begins, region.begins + region.size
        while at < ends:
            self._limit = at
            content = self._look(OUTPUT, at, min(MAX_CODED_BYTES, ends - at))
            run = self._straight_on(content, at)
            matches = [] if run is not None else find_matches(self._index, content, self._find)
            if run is None:
                run = next((match for match in matches if match.size >= _LONG_BYTES), None)
            cut = len(content) if run is None else run.begins
            if cut:
                self._code_piece(
                    content[:cut], at, [match._replace(begins=at + match.begins) for match in matches]
                )
            at += cut
            if run is not None:
                at += self._copy(at, run, ends)

    def _straight_on(self, content: bytes, at: int) -> Match | None:
        """Return a long run, or a whole piece, that goes on where the piece before came from."""
        before = self._before
        if before is None:
            return None
        offset = before.offset + at - before.begins
        equal = common_prefix(content, self._find(before.source, offset, len(content)))
        return Match(0, equal, before.source, offset) if equal >= min(_LONG_BYTES, len(content)) else None

    def _copy(self, at: int, run: Match, ends: int) -> int:
        """Copy a run and what follows it as far as it is the same; return how much."""
        copied = 0
        while at + copied < ends:
            size = min(PIECE_BYTES, ends - at - copied)
            mine = self._look(OUTPUT, at + copied, size)
            equal = common_prefix(mine, self._find(run.source, run.offset + copied, size))
            if equal:
                self._add(copy_of(run.source, run.offset + copied, equal), mine[:equal])
            copied += equal
            if equal < PIECE_BYTES:
                break
        self._before = Match(at, copied, run.source, run.offset)
        return copied

    def _code_piece(self, content: bytes, at: int, matches: list[Match]) -> None:
        hints = self._near(at, len(content)) + matches
        references = choose_references(hints, len(content), base_size=self._header.base_size, output_size=at)
        prefix = b"".join(self._look(*reference) for reference in references)
        packed = self._chooser.code_bytes(content, references, prefix)
        guessed: tuple[Segment, int] | None = None
        if len(content) >= _GUESS_BYTES and len(packed.payload) > _POORLY_PACKED * len(content):
            bases = self._bases(hints, at, len(content))
            guessed = self._chooser.guess_numbers(content, bases, len(packed.payload))
        if guessed is None:
            self._add(packed, content)
        else:
            self._add_guessed(content, *guessed)
        self._index.add(content, OUTPUT, at)
        if matches:
            self._before = matches[-1]

    def _add_guessed(self, content: bytes, segment: Segment, phase: int) -> None:
        ends = phase + segment.size
        self._add_plain(content[:phase])
        self._add(segment, content[phase:ends])
        self._add_plain(content[ends:])

    def _add_plain(self, content: bytes) -> None:
        if content:
            self._add(self._chooser.code_bytes(content, (), b""), content)

    def _near(self, at: int, size: int) -> list[Match]:
        """Return, as if it were found, what lies where the piece before would go on, or else at the same place."""
        before = self._before
        source, offset = (OLD, at) if before is None else (before.source, before.offset + at - before.begins)
        return [Match(at, size, source, offset)]

    def _bases(self, hints: list[Match], at: int, size: int) -> list[Base]:
        """Return old words to try: at the same place, and where most of the piece was found."""
        # Counted from the beginning and from the end: what has a header of another length.
        offsets = {at, at + self._header.base_size - self._header.target_size}
        diagonals: dict[int, int] = {}
        for match in hints:
            if match.source == OLD:
                offset = match.offset + at - match.begins
                diagonals[offset] = diagonals.get(offset, 0) + match.size
        if diagonals:
            offsets.add(max(diagonals, key=lambda offset: (diagonals[offset], -offset)))
        bases: list[Base] = []
        for offset in sorted(offsets):
            missing = max(0, -offset)
            if missing < _EDGE_BYTES and offset + size < self._header.base_size + _EDGE_BYTES:
                content = bytes(missing) + self._look(OLD, offset + missing, size - missing)
                if len(content) > size // 2:
                    bases.append(Base(offset, content, missing))
        return bases
