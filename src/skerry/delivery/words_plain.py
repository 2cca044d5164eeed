"""Runs of words by the standard library alone: a whole run is one long integer, and slices cut it into planes.

Within the long integer, words are kept from flowing into each other by masks of their highest or lowest bits.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache

from skerry.delivery.word_shape import WordShape

_TYPECODES = {2: "H", 4: "I"}
_SIGN_AND_LOW = bytes((value & 0x7F) << 1 for value in range(256))
_TOP_BIT = bytes(value >> 7 for value in range(256))
_FP16_EXPONENT = bytes(value >> 2 & 0x1F for value in range(256))


class PlainWords:
    """`Words` without numpy."""

    def difference(self, new: bytes, old: bytes, word_bytes: int) -> bytes:
        bits, size = 8 * word_bytes, len(new)
        top = _repeated(1 << bits - 1, word_bytes, size)
        a, b = int.from_bytes(new, "little"), int.from_bytes(old, "little")
        # The borrow of each word is caught by its top bit, which is put right afterwards: a - b = a ^ ~b there.
        parity = (a ^ b) & top ^ top
        a |= top
        b |= top
        b ^= top
        a -= b
        a ^= parity
        signs = (a & top) >> bits - 1
        a |= top
        a ^= top
        a <<= 1
        a ^= (signs << bits) - signs
        return a.to_bytes(size, "little")

    def restore(self, coded: bytes, old: bytes, word_bytes: int) -> bytes:
        bits, size = 8 * word_bytes, len(coded)
        top = _repeated(1 << bits - 1, word_bytes, size)
        a = int.from_bytes(coded, "little")
        signs = a & top >> bits - 1
        a ^= signs
        a >>= 1
        a ^= (signs << bits) - signs
        b = int.from_bytes(old, "little")
        parity = (a ^ b) & top
        a |= top
        a ^= top
        b |= top
        b ^= top
        a += b
        a ^= parity
        return a.to_bytes(size, "little")

    def rotate(self, words: bytes, word_bytes: int) -> bytes:
        bits, size = 8 * word_bytes, len(words)
        top = _repeated(1 << bits - 1, word_bytes, size)
        a = int.from_bytes(words, "little")
        signs = a & top
        a ^= signs
        return (a << 1 | signs >> bits - 1).to_bytes(size, "little")

    def rotate_back(self, words: bytes, word_bytes: int) -> bytes:
        bits, size = 8 * word_bytes, len(words)
        top = _repeated(1 << bits - 1, word_bytes, size)
        a = int.from_bytes(words, "little")
        signs = a & top >> bits - 1
        a ^= signs
        return (a >> 1 | signs << bits - 1).to_bytes(size, "little")

    def sort(self, words: bytes, old: bytes, shape: WordShape) -> bytes:
        keys = _exponents(old, shape)
        cells = array(_TYPECODES[shape.word_bytes], words)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return array(cells.typecode, map(cells.__getitem__, order)).tobytes()

    def unsort(self, words: bytes, old: bytes, shape: WordShape) -> bytes:
        keys = _exponents(old, shape)
        cells = array(_TYPECODES[shape.word_bytes], words)
        heaps: list[Iterator[int]] = [iter(())] * 256
        begins = 0
        for key in sorted(set(keys)):
            ends = begins + keys.count(key)
            heaps[key] = iter(cells[begins:ends])
            begins = ends
        return array(cells.typecode, map(next, map(heaps.__getitem__, keys))).tobytes()

    def split(self, words: bytes, word_bytes: int) -> list[bytes]:
        return [words[index::word_bytes] for index in range(word_bytes)]

    def join(self, planes: Sequence[bytes]) -> bytes:
        if len(planes) == 1:
            return planes[0]
        words = bytearray(len(planes) * len(planes[0]))
        for index, plane in enumerate(planes):
            words[index :: len(planes)] = plane
        return bytes(words)

    def narrow(self, plane: bytes, bits: int) -> list[bytes]:
        per_byte = 8 // bits
        padded = plane + bytes(-len(plane) % per_byte)
        size = len(padded) // per_byte
        columns = [int.from_bytes(padded[index::per_byte], "little") for index in range(per_byte)]
        mask = _repeated((1 << bits) - 1, 1, size)
        parts: list[bytes] = []
        for part in range(per_byte):
            packed = 0
            for index, column in enumerate(columns):
                packed |= (column >> bits * part & mask) << bits * index
            parts.append(packed.to_bytes(size, "little"))
        return parts

    def widen(self, parts: Sequence[bytes], bits: int, count: int) -> bytes:
        per_byte, size = 8 // bits, len(parts[0])
        mask = _repeated((1 << bits) - 1, 1, size)
        numbers = [int.from_bytes(part, "little") for part in parts]
        plane = bytearray(per_byte * size)
        for index in range(per_byte):
            column = 0
            for part, number in enumerate(numbers):
                column |= (number >> bits * index & mask) << bits * part
            plane[index::per_byte] = column.to_bytes(size, "little")
        return bytes(plane[:count])


def _exponents(old: bytes, shape: WordShape) -> bytes:
    """Return the exponent of each word as a byte."""
    lowest, bits = shape.exponent
    high = old[shape.word_bytes - 1 :: shape.word_bytes]
    if bits == 5:
        return high.translate(_FP16_EXPONENT)
    assert lowest % 8 == 7
    low = old[shape.word_bytes - 2 :: shape.word_bytes].translate(_TOP_BIT)
    joined = int.from_bytes(high.translate(_SIGN_AND_LOW), "little") | int.from_bytes(low, "little")
    return joined.to_bytes(len(high), "little")


# Most runs of a file are equally long; one mask is as large as a run.
@lru_cache(maxsize=2)
def _repeated(pattern: int, word_bytes: int, size: int) -> int:
    """Return a long integer of `size` bytes with the pattern in every word."""
    return int.from_bytes(pattern.to_bytes(word_bytes, "little") * (size // word_bytes), "little")


WORDS = PlainWords()
