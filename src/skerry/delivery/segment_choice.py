"""Which operation makes a piece of the new file smallest.

Rules:
- Shapes and bases are tried with the fastest level of zstd, and on a sample where the piece is large; only what
  wins is packed with care.
- Each trial is of a piece of at most 1 MiB, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from skerry.delivery import planes, zstd_frames
from skerry.delivery.delta_format import NUM, NUMFULL, OLD, ZPATCH, ZSTD, Reference, Segment
from skerry.delivery.delta_limits import MIN_PREFIX_BYTES
from skerry.delivery.word_shape import BY_BF16_EXPONENT, BY_EXPONENT, WordShape
from skerry.delivery.words import Words

_QUICK_LEVEL = 1
_QUICK = (_QUICK_LEVEL,)
_SAMPLE_BYTES = 64 << 10
# Below this, what planes cost by themselves is more than they save.
_MIN_NUMBERS_BYTES = 256
_SHAPES = {
    "f32": (WordShape(4, BY_EXPONENT), WordShape(4)),
    "f16": (WordShape(2, BY_EXPONENT), WordShape(2)),
    "bf16": (WordShape(2, BY_BF16_EXPONENT), WordShape(2)),
    "u32": (WordShape(4),),
    "u16": (WordShape(2),),
    "u8": (WordShape(1),),
}


class Base(NamedTuple):
    """Words of the old file to subtract: where they stand, and they themselves.

    What would stand before the old file begins is zero and must not be referred to; there are `missing` bytes of it.
    """

    offset: int
    content: bytes
    missing: int = 0


class SegmentChooser:
    """Codes pieces of at most 1 MiB."""

    def __init__(self, words: Words, *, level: int) -> None:
        self._words = words
        self._level = level

    def code_bytes(self, content: bytes, references: Sequence[Reference], prefix: bytes) -> Segment:
        """Return content packed by zstd, after its references where that is smaller."""
        if len(prefix) < MIN_PREFIX_BYTES:
            return Segment(ZSTD, len(content), payload=self._pack(content))
        quick_plain = zstd_frames.compress(content, _QUICK_LEVEL)
        after = zstd_frames.compress_after(prefix, content, self._level)
        best = Segment(ZPATCH, len(content), tuple(references), after)
        if len(quick_plain) < 2 * (len(after) + 8 * len(references)):
            plain = self._pack(content)
            if len(plain) < len(after) + 8 * len(references):
                best = Segment(ZSTD, len(content), payload=plain)
        return best

    def _pack(self, content: bytes) -> bytes:
        return min(
            zstd_frames.compress(content, self._level), zstd_frames.compress(content, _QUICK_LEVEL), key=len
        )

    def is_hopeless(self, content: bytes, prefix: bytes, packed_bytes: int) -> bool:
        """Tell whether packing after a prefix would hardly come below `packed_bytes`, by a quick look."""
        return len(zstd_frames.compress_after(prefix, content, 3)) > 1.3 * packed_bytes

    def code_numbers(self, content: bytes, kind: str, base: Base | None) -> Segment | None:
        """Return a tensor's piece as numbers, less those of `base` where that is smaller; `None` if it has none."""
        tried: list[tuple[int, WordShape, bool]] = []
        for shape in _SHAPES[kind]:
            if len(content) % shape.word_bytes or len(content) < _MIN_NUMBERS_BYTES:
                continue
            if base is not None:
                packed = planes.pack_difference(self._words, content, base.content, shape, levels=_QUICK)
                tried.append((len(packed), shape, True))
            if shape.order == 0:
                packed = planes.pack_full(self._words, content, shape, levels=_QUICK)
                tried.append((len(packed), shape, False))
        if not tried:
            return None
        _, shape, is_relative = min(tried, key=lambda trial: trial[0])
        return self._numbers(content, shape, base if is_relative else None)

    def _numbers(self, content: bytes, shape: WordShape, base: Base | None) -> Segment:
        levels = (_QUICK_LEVEL, self._level)
        if base is None:
            payload = planes.pack_full(self._words, content, shape, levels=levels)
            return Segment(NUMFULL, len(content), payload=payload, shape=shape)
        payload = planes.pack_difference(self._words, content, base.content, shape, levels=levels)
        reference = Reference(OLD, base.offset, len(content))
        return Segment(NUM, len(content), (reference,), payload, shape)

    def guess_numbers(
        self, content: bytes, bases: Sequence[Base], packed_bytes: int
    ) -> tuple[Segment, int] | None:
        """Return content of an unknown format as numbers and how many bytes of it lead up to the first word.

        `None` when that is not smaller than `packed_bytes`. The bytes before the first whole word and after the
        last are not in the segment.
        """
        begins = max(0, (len(content) - _SAMPLE_BYTES) // 2) & -8
        sample = content[begins : begins + _SAMPLE_BYTES]
        best: tuple[float, str, int, Base | None] | None = None
        for kind, phase, base in _guesses(bases):
            size = (len(sample) - phase) & -4
            if size < _MIN_NUMBERS_BYTES:
                continue
            piece = sample[phase : phase + size]
            for shape in _SHAPES[kind]:
                if base is None:
                    if shape.order:
                        continue
                    packed = planes.pack_full(self._words, piece, shape, levels=_QUICK)
                else:
                    old = base.content[begins + phase : begins + phase + size]
                    if len(old) < size:
                        continue
                    packed = planes.pack_difference(self._words, piece, old, shape, levels=_QUICK)
                ratio = len(packed) / size
                if best is None or ratio < best[0] * 0.995:
                    best = (ratio, kind, phase, base)
        if best is None or best[0] * len(content) > packed_bytes:
            return None
        _, kind, phase, base = best
        size = (min(len(content), len(content if base is None else base.content)) - phase) & -4
        inner = None if base is None else Base(base.offset + phase, base.content[phase : phase + size])
        segment = self.code_numbers(content[phase : phase + size], kind, inner)
        return None if segment is None else (segment, phase)


def _guesses(bases: Sequence[Base]) -> Iterator[tuple[str, int, Base | None]]:
    for base in (*bases, None):
        missing = 0 if base is None else base.missing
        yield "u8", missing, base
        for kind, word_bytes in (("f32", 4), ("f16", 2), ("bf16", 2)):
            for phase in range(missing, missing + word_bytes):
                yield kind, phase, base
