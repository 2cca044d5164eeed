"""Numbers as planes: the payload of the operations NUM and NUMFULL.

A payload is, for each byte of the words from the lowest on, a byte that tells the width of its planes (0: 8 bits,
1: 4 bits, 2: 2 bits) and then each plane: its length, and its bytes. A plane of length 0 is all zero, one of full
length is stored, any other is a zstd frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from skerry.delivery import zstd_frames
from skerry.delivery.delta_format import CheckedReader, encode_integer
from skerry.delivery.delta_limits import refusal
from skerry.delivery.word_shape import UNSORTED, WordShape
from skerry.delivery.words import Words

_WIDTHS = (8, 4, 2)


def pack_difference(
    words: Words, new: bytes, old: bytes, shape: WordShape, *, levels: Sequence[int]
) -> bytes:
    """Return the payload of `new` relative to `old`, the smallest of several levels of zstd."""
    coded = words.difference(new, old, shape.word_bytes)
    if shape.order != UNSORTED:
        coded = words.sort(coded, old, shape)
    return _pack(words, coded, shape.word_bytes, levels)


def unpack_difference(words: Words, payload: bytes | memoryview, old: bytes, shape: WordShape) -> bytes:
    """Return the new words.

    Raises:
        Untrusted: the payload is malformed.
    """
    coded = _unpack(words, payload, shape.word_bytes, len(old))
    if shape.order != UNSORTED:
        coded = words.unsort(coded, old, shape)
    return words.restore(coded, old, shape.word_bytes)


def pack_full(words: Words, new: bytes, shape: WordShape, *, levels: Sequence[int]) -> bytes:
    """Return the payload of words that have no base."""
    return _pack(words, words.rotate(new, shape.word_bytes), shape.word_bytes, levels)


def unpack_full(words: Words, payload: bytes | memoryview, size: int, shape: WordShape) -> bytes:
    """Return the words.

    Raises:
        Untrusted: the payload is malformed.
    """
    return words.rotate_back(_unpack(words, payload, shape.word_bytes, size), shape.word_bytes)


def _pack(words: Words, coded: bytes, word_bytes: int, levels: Sequence[int]) -> bytes:
    return b"".join(_smallest(words, plane, levels) for plane in words.split(coded, word_bytes))


def _smallest(words: Words, plane: bytes, levels: Sequence[int]) -> bytes:
    """Return a byte plane in the width that makes it smallest."""
    best = b"\x00" + _pack_plane(plane, levels)
    # Narrow planes help where few values are frequent; what hardly shrinks as bytes has none of that.
    if 64 < len(best) < len(plane) * 3 // 4:
        for code, bits in list(enumerate(_WIDTHS))[1:]:
            narrow = b"".join(_pack_plane(part, levels) for part in words.narrow(plane, bits))
            if len(narrow) + 1 < len(best):
                best = bytes((code,)) + narrow
    return best


def _pack_plane(plane: bytes, levels: Sequence[int]) -> bytes:
    if not any(plane):
        return encode_integer(0)
    packed = min((zstd_frames.compress(plane, level) for level in levels), key=len)
    if len(packed) >= len(plane):
        packed = plane
    return encode_integer(len(packed)) + packed


class _Payload:
    def __init__(self, payload: bytes | memoryview) -> None:
        self._payload = payload
        self.at = 0

    def read(self, size: int, /) -> bytes:
        found = bytes(self._payload[self.at : self.at + size])
        self.at += len(found)
        return found


def _unpack(words: Words, payload: bytes | memoryview, word_bytes: int, size: int) -> bytes:
    source = _Payload(payload)
    reader = CheckedReader(source)
    count = size // word_bytes
    planes = [_unpack_plane(words, reader, count) for _ in range(word_bytes)]
    if source.at != len(payload):
        raise refusal("malformed", "a payload goes on after its last plane")
    return words.join(planes)


def _unpack_plane(words: Words, reader: CheckedReader, count: int) -> bytes:
    code = reader.exactly(1)[0]
    if code >= len(_WIDTHS):
        raise refusal("malformed", f"there is no width of planes {code}")
    bits = _WIDTHS[code]
    per_byte = 8 // bits
    packed = -(-count // per_byte)
    parts = [_unpack_part(reader, packed) for _ in range(per_byte)]
    return parts[0] if bits == 8 else words.widen(parts, bits, count)


def _unpack_part(reader: CheckedReader, size: int) -> bytes:
    length = reader.integer(size, "length of a plane")
    if not length:
        return bytes(size)
    content = reader.exactly(length)
    return content if length == size else zstd_frames.unpack(content, size)
