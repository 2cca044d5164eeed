"""How a run of numbers is to be taken: the size of its words, and by which bits of the old words they are sorted."""

from __future__ import annotations

from typing import NamedTuple

from skerry.delivery.delta_limits import refusal

UNSORTED, BY_EXPONENT, BY_BF16_EXPONENT = range(3)

# (word bytes, order) -> (lowest bit of the exponent, its bits); IEEE 754 binary32 and binary16, and bfloat16.
EXPONENTS = {(4, BY_EXPONENT): (23, 8), (2, BY_EXPONENT): (10, 5), (2, BY_BF16_EXPONENT): (7, 8)}


class WordShape(NamedTuple):
    """Words of 1, 2 or 4 bytes, little-endian, in an order."""

    word_bytes: int
    order: int = UNSORTED

    @property
    def code(self) -> int:
        """Return the shape's byte: the logarithm of the size, and above it the order."""
        return (self.word_bytes >> 1) | self.order << 2

    @property
    def exponent(self) -> tuple[int, int]:
        """Return the exponent's lowest bit and its bits."""
        return EXPONENTS[self.word_bytes, self.order]

    def check_size(self, size: int, *, is_full: bool) -> None:
        """Hold a segment of `size` bytes against the shape.

        Raises:
            Untrusted: it is no whole number of words, or sorted by words that it does not have.
        """
        if size % self.word_bytes:
            raise refusal("malformed", "a segment ends within a word")
        if is_full and self.order != UNSORTED:
            raise refusal("malformed", "words without a base have nothing to be sorted by")


def parse_shape(code: int) -> WordShape:
    """Return the shape of a byte.

    Raises:
        Untrusted: there is no such shape (`delta.malformed`).
    """
    logarithm, order = code & 3, code >> 2
    shape = WordShape(1 << logarithm, order)
    if logarithm == 3 or (order != UNSORTED and (shape.word_bytes, order) not in EXPONENTS):
        raise refusal("malformed", f"there are no words of shape {code}")
    return shape
