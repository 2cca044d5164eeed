"""What is done to runs of numbers before they are packed, and undone after: one contract, two implementations.

Rules:
- Words are unsigned and little-endian; sums and differences are taken modulo 2 to the power of their bits.
- Both implementations give the same bytes (tests/unit/test_delta_words.py). numpy is faster; without it, long
  integers and slices do the same in C speed, in memory of a few times the run's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from skerry.delivery.word_shape import WordShape


class Words(Protocol):
    """Arithmetic on runs of words: buffers hold whole words, and those of a pair are equally long."""

    def difference(self, new: bytes, old: bytes, word_bytes: int) -> bytes:
        """Return new minus old, zig-zag: 0, -1, 1, -2 become 0, 1, 2, 3."""
        ...

    def restore(self, coded: bytes, old: bytes, word_bytes: int) -> bytes:
        """Return the new words of `difference`."""
        ...

    def rotate(self, words: bytes, word_bytes: int) -> bytes:
        """Return each word rotated left by one bit, so that the sign comes last."""
        ...

    def rotate_back(self, words: bytes, word_bytes: int) -> bytes:
        """Return the words of `rotate`."""
        ...

    def sort(self, words: bytes, old: bytes, shape: WordShape) -> bytes:
        """Return the words in the stable order of the exponents of the old words."""
        ...

    def unsort(self, words: bytes, old: bytes, shape: WordShape) -> bytes:
        """Return the words of `sort`."""
        ...

    def split(self, words: bytes, word_bytes: int) -> list[bytes]:
        """Return the first bytes of all words, then the second, and so on."""
        ...

    def join(self, planes: Sequence[bytes]) -> bytes:
        """Return the words of `split`."""
        ...

    def narrow(self, plane: bytes, bits: int) -> list[bytes]:
        """Return the lowest `bits` (4 or 2) of all bytes, then those above, each packed from the low end."""
        ...

    def widen(self, parts: Sequence[bytes], bits: int, count: int) -> bytes:
        """Return the `count` bytes of `narrow`."""
        ...


def choose_words(*, numpy: bool | None = None) -> Words:
    """Return the implementation: with numpy, without, or with it where it is installed."""
    if numpy is None:
        numpy = find_spec("numpy") is not None
    module = import_module(f"skerry.delivery.words_{'numpy' if numpy else 'plain'}")
    return cast(Words, module.WORDS)
