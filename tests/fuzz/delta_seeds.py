"""Small deltas from our own encoder, with every operation in them, for fuzzing to begin at."""

from __future__ import annotations

from functools import cache
from random import Random

from skerry.delivery import planes, zstd_frames
from skerry.delivery.block_packing import BlockPacker
from skerry.delivery.delta_format import (
    COPY,
    NUM,
    NUMFULL,
    OLD,
    OUTPUT,
    ZPATCH,
    ZSTD,
    Header,
    Reference,
    Segment,
    encode_header,
)
from skerry.delivery.word_shape import WordShape, parse_shape
from tests.unit.delta_files_of import PLAIN, delta_of, noise, safetensors_of, sha256

SHAPES = [parse_shape(code) for code in (0, 1, 2, 5, 6, 9)]


@cache
def old_file() -> bytes:
    """Return the one old file of all deltas: a small model."""
    return safetensors_of(
        {"a": ("F16", _floats(400)), "b": ("F32", _floats(300) * 2), "t": ("U8", b"edge " * 100)}
    )


def _floats(count: int) -> bytes:
    random = Random(5)
    return b"".join(random.randrange(1 << 13, 1 << 14).to_bytes(2, "little") for _ in range(count))


def nudged(words: bytes, step: int) -> bytes:
    """Return content of the same length, near to what it was."""
    return bytes((value + (index % 5 == 0) * step) & 0xFF for index, value in enumerate(words))


@cache
def delta_seeds() -> list[bytes]:
    """Return deltas from `old_file`: as the encoder makes them, and one of each operation by hand."""
    old = old_file()
    news = [
        old,
        b"",
        nudged(old, 1),
        old[700:] + old[:700] + noise(60),
        safetensors_of(
            {
                "a": ("F16", nudged(_floats(400), 1)),
                "b": ("F32", nudged(_floats(300) * 2, 2)),
                "n": ("F16", _floats(300)),
            }
        ),
    ]
    return [delta_of(old, new, level=level) for new in news for level in (1, 19)] + [_by_hand(old)]


def _by_hand(old: bytes) -> bytes:
    blocks: list[bytes] = []
    packer = BlockPacker(blocks.append)
    made = b""
    segments = list(every_operation(old))
    # The second block refers to the output of the first.
    for part in (segments, [*segments[:2], (Segment(COPY, 300, (Reference(OUTPUT, 5, 300),)), b"")]):
        begins = made
        for segment, content in part:
            content = content or begins[5:305]
            packer.add(segment, content)
            made += content
        packer.flush()
    return encode_header(Header(len(old), sha256(old), len(made), sha256(made))) + b"".join(blocks)


def every_operation(old: bytes) -> list[tuple[Segment, bytes]]:
    """Return a segment of each operation and shape, with what it makes."""
    text = b"a part that repeats, a part that repeats, and ends"
    patch = zstd_frames.compress_after(old[:900], old[30:500], 3)
    found = [
        (Segment(COPY, 90, (Reference(OLD, 7, 90),)), old[7:97]),
        (Segment(ZSTD, len(text), payload=zstd_frames.compress(text, 3)), text),
        (Segment(ZPATCH, 470, (Reference(OLD, 0, 400), Reference(OLD, 400, 500)), patch), old[30:500]),
    ]
    for shape in SHAPES:
        # Few values are frequent: planes of 2 and 4 bits come of that.
        words, new = old[200:1000], nudged(old[200:1000], 1)
        payload = planes.pack_difference(PLAIN, new, words, shape, levels=(1,))
        found.append((Segment(NUM, 800, (Reference(OLD, 200, 800),), payload, shape), new))
    for word_bytes in (1, 2, 4):
        sparse = bytes((index % 7 == 0) * 3 for index in range(800))
        payload = planes.pack_full(PLAIN, sparse, WordShape(word_bytes), levels=(1,))
        found.append((Segment(NUMFULL, 800, payload=payload, shape=WordShape(word_bytes)), sparse))
    return found
