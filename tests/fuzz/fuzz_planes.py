"""Payloads of numbers, by both ways to handle words: refused as `delta.*` by both, or the same words.

The first byte of an input is the shape and whether the words have a base, the next two their number; the rest is
the payload.
"""

from __future__ import annotations

from functools import partial

from skerry.delivery import planes
from skerry.delivery.word_shape import WordShape
from skerry.delivery.words import Words
from skerry.kit.errors import Untrusted
from tests.fuzz.delta_seeds import SHAPES, nudged
from tests.fuzz.target import Broken, Target
from tests.unit.delta_files_of import PLAIN, WITH_NUMPY, noise

_BASE = noise(64 << 10)
_FULL = 0x80


def run_words(data: bytes, *, ways: tuple[Words, ...]) -> None:
    """Unpack an input in each way."""
    if len(data) < 3:
        return
    shape = SHAPES[(data[0] & ~_FULL) % len(SHAPES)]
    size = (1 + int.from_bytes(data[1:3], "little") % (len(_BASE) // 4)) * shape.word_bytes
    outcomes = [_unpack(words, data[3:], shape, size, is_full=bool(data[0] & _FULL)) for words in ways]
    if any(outcome != outcomes[0] for outcome in outcomes):
        raise Broken("words differ")
    if isinstance(outcomes[0], bytes) and len(outcomes[0]) != size:
        raise Broken(f"{len(outcomes[0])} bytes were made of a payload for {size}")


def _unpack(words: Words, payload: bytes, shape: WordShape, size: int, *, is_full: bool) -> bytes | str:
    try:
        if is_full:
            return planes.unpack_full(words, payload, size, WordShape(shape.word_bytes))
        return planes.unpack_difference(words, payload, _BASE[:size], shape)
    except Untrusted as refused:
        if not refused.code.startswith("delta."):
            raise Broken(f"refused as {refused.code}") from refused
        return refused.code


def seeds() -> list[bytes]:
    """Return payloads of each shape: whole planes, narrow ones, stored ones, and ones of nothing."""
    found: list[bytes] = []
    for index, shape in enumerate(SHAPES):
        for count in (1, 50, 401):
            size = count * shape.word_bytes
            begins = bytes((index,)), (count - 1).to_bytes(2, "little")
            for new in (_BASE[:size], nudged(_BASE[:size], 1), bytes(size)):
                payload = planes.pack_difference(PLAIN, new, _BASE[:size], shape, levels=(1,))
                found.append(b"".join((*begins, payload)))
            sparse = bytes((at % 7 == 0) * 3 for at in range(size))
            payload = planes.pack_full(PLAIN, sparse, WordShape(shape.word_bytes), levels=(1,))
            found.append(b"".join((bytes((index | _FULL,)), begins[1], payload)))
    return found


TARGET = Target(partial(run_words, ways=(PLAIN, WITH_NUMPY)), seeds, max_bytes=4096)
