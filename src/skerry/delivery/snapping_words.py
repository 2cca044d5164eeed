"""Moves words of floating-point numbers, within a bound, to where their difference to old words codes small; by numpy.

Rules:
- A word stays as it is when it is zero, infinite or no number, and where no other one keeps the bound; none changes
  its sign, and none becomes zero, infinite or NaN.
- The bound is checked for every word after rounding, on exact values: what rounding across an exponent's border makes
  too far off is rounded less.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FULL_MANTISSA_BITS = 23


class FloatForm(NamedTuple):
    """How a word is laid out: bytes, and bits of mantissa and exponent. Values are what IEEE 754 says."""

    word_bytes: int
    mantissa_bits: int
    exponent_bits: int

    @property
    def bias(self) -> int:
        """Return what is added to the exponents of numbers."""
        return (1 << (self.exponent_bits - 1)) - 1


FORMS = {"f32": FloatForm(4, 23, 8), "f16": FloatForm(2, 10, 5), "bf16": FloatForm(2, 7, 8)}


class SnappedWords(NamedTuple):
    """New words: how many differ from what they were, and the largest error relative to the number or the floor."""

    content: bytes
    words_changed: int
    largest_error: float


def bound_of(bits: int) -> float:
    """Return the largest error that `bits` allow, relative to a number: what the lowest `bits` of an fp32 come to."""
    return 2.0 ** (bits - FULL_MANTISSA_BITS)


def sum_squares(content: bytes, form: FloatForm) -> tuple[float, int]:
    """Return the sum of the squares of all finite numbers, and how many these are."""
    values = _values(_words(content, form), form)
    finite = values[np.isfinite(values)]
    return float(np.dot(finite, finite)), len(finite)


def floor_of(squares: float, count: int) -> float:
    """Return the floor of a tensor: the largest power of two that is not above its root mean square, or 0."""
    if not squares:
        return 0.0
    return math.ldexp(0.5, math.frexp(math.sqrt(squares / count))[1])


def snap_words(new: bytes, old: bytes, form: FloatForm, *, bits: int, floor: float) -> SnappedWords:
    """Return `new` with each word at a small whole number of steps from the old one.

    No number moves by more than `bound_of(bits)` of itself, or of `floor` where it is smaller than that. `floor` is a
    power of two or 0. A step is the largest power of two that keeps to this when words are rounded to the nearest, so
    that errors are as often up as down.
    """
    wanted, known = _words(new, form), _words(old, form)
    values = _values(wanted, form)
    scales = np.maximum(np.abs(values), floor)
    differences = _signed(wanted - known, form)
    steps = _step_bits(wanted, form, bits=bits, floor=floor)
    chosen = wanted.copy()
    pending = np.flatnonzero(np.isfinite(values) & (values != 0) & (differences != 0) & (steps > 0))
    while pending.size:
        candidates = _rounded(known[pending], differences[pending], steps[pending])
        moved = _values(candidates, form)
        # Not equal to the limit: a difference that float64 had to round may be a little beyond.
        with np.errstate(invalid="ignore"):
            near = np.abs(moved - values[pending]) < bound_of(bits) * scales[pending]
        fits = near & (moved != 0) & (np.signbit(moved) == np.signbit(values[pending]))
        chosen[pending[fits]] = candidates[fits]
        pending = pending[~fits]
        steps[pending] -= 1
        pending = pending[steps[pending] > 0]
    changed = np.flatnonzero(chosen != wanted)
    if not changed.size:
        return SnappedWords(new, 0, 0.0)
    errors = np.abs(_values(chosen[changed], form) - values[changed]) / scales[changed]
    return SnappedWords(chosen.tobytes(), len(changed), float(errors.max()))


def _words(content: bytes, form: FloatForm) -> NDArray[Any]:
    return np.frombuffer(content, f"<u{form.word_bytes}")


def _values(words: NDArray[Any], form: FloatForm) -> NDArray[np.float64]:
    """Return the exact values of words."""
    if (form.word_bytes, form.exponent_bits) == (2, 8):
        words = (words.astype("<u4") << np.uint32(16)).astype("<u4", copy=False)
    # A signalling NaN is no cause for a warning.
    with np.errstate(invalid="ignore"):
        return words.view(f"<f{words.dtype.itemsize}").astype(np.float64)


def _signed(differences: NDArray[Any], form: FloatForm) -> NDArray[np.int64]:
    signed: NDArray[Any] = differences.view(f"<i{form.word_bytes}")
    return signed.astype(np.int64)


def _step_bits(words: NDArray[Any], form: FloatForm, *, bits: int, floor: float) -> NDArray[np.int64]:
    """Return the logarithm of each word's step: twice as far as the word may move, so that the nearest is in reach."""
    own = bits - (FULL_MANTISSA_BITS - form.mantissa_bits) + 1
    exponents = (words >> form.mantissa_bits).astype(np.int64) & ((1 << form.exponent_bits) - 1)
    exponents = np.maximum(exponents, 1)
    floor_exponent = math.frexp(floor)[1] - 1 + form.bias if floor else 0
    steps: NDArray[np.int64] = np.minimum(
        own + np.maximum(0, floor_exponent - exponents), 8 * form.word_bytes - 2
    )
    return steps


def _rounded(known: NDArray[Any], differences: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[Any]:
    """Return the words whose difference to the old ones is nearest, among those that code small.

    These are 0, s, 2s ... upwards and 1 + s, 1 + 2s ... downwards: zig-zag turns them into 0, 2s, 4s ... and 1 + 2s,
    1 + 4s ..., whose bits between the lowest and those of the step are zero for both signs.
    """
    down = (differences < 0).astype(np.int64)
    size = np.left_shift(np.int64(1), steps)
    whole = ((np.abs(differences) - down + (size >> 1)) >> steps) << steps
    moves = np.where(down == 1, -(whole + (whole > 0)), whole)
    return (known.astype(np.int64) + moves).astype(known.dtype)
