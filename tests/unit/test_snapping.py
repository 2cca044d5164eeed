"""Snapped words keep their bound, whatever they are; nothing else of a file changes; and the delta becomes smaller."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from skerry.delivery.snapping import MAX_BITS, MIN_BITS, Snapper, SnapReport
from skerry.delivery.snapping_words import FORMS, FloatForm, bound_of, floor_of, snap_words, sum_squares
from skerry.delivery.tensors import find_tensors
from skerry.kit.errors import Rejected
from tests.unit.delta_files_of import WITH_NUMPY, delta_of, safetensors_of
from tests.unit.test_delta_tensors import onnx_of

pytestmark = pytest.mark.delivery

KINDS = ("f32", "f16", "bf16")
DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


def exact_value(word: int, form: FloatForm) -> Fraction | None:
    """Return what a word stands for by the definition of IEEE 754; None if it is infinite or no number."""
    sign, rest = divmod(word, 1 << (8 * form.word_bytes - 1))
    exponent, mantissa = divmod(rest, 1 << form.mantissa_bits)
    if exponent == (1 << form.exponent_bits) - 1:
        return None
    whole = mantissa + (1 << form.mantissa_bits) if exponent else mantissa
    scale = Fraction(2) ** (max(exponent, 1) - form.bias - form.mantissa_bits)
    return -whole * scale if sign else whole * scale


def words_of(form: FloatForm) -> st.SearchStrategy[int]:
    """Draw words, most of them at borders: exponents, denormals, zeros, infinities and NaN of both signs."""
    modulus, top = 1 << (8 * form.word_bytes), (1 << form.exponent_bits) - 1

    def at_border(negative: bool, exponent: int, near: int) -> int:
        return (negative * modulus // 2 + max(0, (exponent << form.mantissa_bits) + near)) % modulus

    exponents = st.one_of(st.sampled_from((0, 1, form.bias, top - 1)), st.integers(0, top))
    return st.one_of(
        st.integers(0, modulus - 1), st.builds(at_border, st.booleans(), exponents, st.integers(-3, 3))
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, int, list[tuple[int, int]]]:
    """Draw a kind, bits, and pairs of a new and an old word: most are near each other."""
    kind = draw(st.sampled_from(KINDS))
    form = FORMS[kind]
    width = 8 * form.word_bytes
    both: list[tuple[int, int]] = []
    for _ in range(draw(st.integers(1, 12))):
        word = draw(words_of(form))
        if draw(st.booleans()):
            reach = 1 << draw(st.integers(0, width - 1))
            both.append((word, (word + draw(st.integers(-reach, reach))) % (1 << width)))
        else:
            both.append((word, draw(words_of(form))))
    return kind, draw(st.integers(MIN_BITS, MAX_BITS)), both


def packed(words: list[int], form: FloatForm) -> bytes:
    return b"".join(word.to_bytes(form.word_bytes, "little") for word in words)


def unpacked(content: bytes, form: FloatForm) -> list[int]:
    step = form.word_bytes
    return [int.from_bytes(content[at : at + step], "little") for at in range(0, len(content), step)]


@settings(max_examples=200, deadline=None)
@given(pairs())
# Rounding up crosses into the next exponent, where steps are twice as wide.
@example(("f32", 14, [(0x3FFFE001, 0x3FFF0000), (0x3F800000, 0x3F802000), (0x3F7FFFFF, 0x3F801000)]))
# A zero stays one, though the bound of its tensor would let it move.
@example(("f32", 20, [(0, 0x3F000000), (0x80000000, 1), (0x3F800000, 0x3F800001)]))
# Signalling and quiet NaN, infinities, the largest and the smallest number.
@example(("f32", 14, [(0x7F800001, 0), (0x7FC00000, 1), (0xFF800000, 2), (0x7F7FFFFF, 0x7F000000), (1, 0)]))
@example(("bf16", 20, [(0x7F7F, 0x7F81), (0x0001, 0x0040), (0xFF80, 0x7F80)]))
def test_no_word_moves_beyond_its_bound(drawn: tuple[str, int, list[tuple[int, int]]]) -> None:
    kind, bits, both = drawn
    form = FORMS[kind]
    new, old = (packed([pair[side] for pair in both], form) for side in (0, 1))
    floor = floor_of(*sum_squares(new, form))
    snapped = snap_words(new, old, form, bits=bits, floor=floor)
    bound, changed, largest = Fraction(2) ** (bits - 23), 0, Fraction(0)
    for (word, _), got in zip(both, unpacked(snapped.content, form), strict=True):
        before, after = exact_value(word, form), exact_value(got, form)
        if got == word:
            continue
        assert before and after, "neither a zero, an infinity or a NaN came from or went to anything"
        assert (before < 0) == (after < 0)
        error = abs(after - before) / max(abs(before), Fraction(floor))
        assert error <= bound
        changed, largest = changed + 1, max(largest, error)
    assert snapped.words_changed == changed
    assert snapped.largest_error == pytest.approx(float(largest))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_the_floor_is_a_power_of_two_not_above_the_root_mean_square(values: list[float]) -> None:
    squares, count = sum_squares(np.array(values, "<f4").tobytes(), FORMS["f32"])
    floor, root = floor_of(squares, count), math.sqrt(squares / count)
    assert floor <= root * (1 + 1e-12)
    assert floor * 2 > root * (1 - 1e-12) or not squares
    assert not floor or math.frexp(floor)[0] == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_planes_between_the_sign_and_the_step_are_zero(kind: str) -> None:
    """What makes it pay: a difference, zig-zag, has but its lowest bit and those above the step."""
    form, bits = FORMS[kind], 18
    rng = np.random.default_rng(3)
    values = 1 + rng.random(5000)
    old, new = (weights_of(held, kind) for held in (values, values * (1 + 0.2 * rng.standard_normal(5000))))
    snapped = snap_words(new, old, form, bits=bits, floor=0.0)
    coded = WITH_NUMPY.difference(snapped.content, old, form.word_bytes)
    own = bits - (23 - form.mantissa_bits) + 1
    between = ((1 << (own + 1)) - 1) & ~1
    stray = [word for word in unpacked(coded, form) if word & between]
    # Only at borders of exponents a word keeps other bits.
    assert len(stray) < 0.02 * 5000
    assert snapped.words_changed > 4000


def weights_of(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], kind: str) -> bytes:
    if kind == "f16":
        return values.astype("<f2").tobytes()
    words = values.astype("<f4").view("<u4")
    return words.tobytes() if kind == "f32" else (words >> 16).astype("<u2").tobytes()


def snapped_of(old: bytes, new: bytes, bits: int) -> tuple[bytes, SnapReport]:
    snapper = Snapper(io.BytesIO(old), io.BytesIO(new), bits=bits)
    return b"".join(snapper.pieces()), snapper.report()


def delta_bytes(old: bytes, new: bytes) -> int:
    return len(delta_of(old, new, words=WITH_NUMPY, level=3))


def tuned(seed: int, count: int, spread: float) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return weights by kind, and the same after a training."""
    rng = np.random.default_rng(seed)
    before = 0.05 * rng.standard_normal(count)
    after = before + 0.05 * spread * rng.standard_normal(count)
    return (
        {kind: weights_of(before, kind) for kind in KINDS},
        {kind: weights_of(after, kind) for kind in KINDS},
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(300, 6000), st.sampled_from((0.0, 1e-4, 1e-2, 0.3, 3.0)))
def test_a_snapped_file_differs_in_paired_floats_alone_and_has_no_larger_delta(
    seed: int, count: int, spread: float
) -> None:
    before, after = tuned(seed, count, spread)
    extra = {"ids": ("I32", before["f32"]), "tiny": ("F32", before["f32"][:400])}
    old = safetensors_of({kind: (DTYPES[kind], before[kind]) for kind in KINDS} | extra)
    moved = {"ids": ("I32", after["f32"]), "tiny": ("F32", after["f32"][:400]), "new": ("F32", after["f32"])}
    new = safetensors_of({kind: (DTYPES[kind], after[kind]) for kind in KINDS} | moved)
    got, report = snapped_of(old, new, 14)
    assert len(got) == len(new)
    at = 0
    for tensor in find_tensors(io.BytesIO(new), len(new)):
        if tensor.name in KINDS:
            assert got[at : tensor.offset] == new[at : tensor.offset]
            at = tensor.offset + tensor.size
    assert got[at:] == new[at:]
    assert [(t.name, t.kind, t.words) for t in report.tensors] == [(kind, kind, count) for kind in KINDS]
    assert report.largest_error <= report.bound == bound_of(14) == 2**-9
    # Each block of a delta has bounds of its own to state: a few bytes may go either way.
    assert delta_bytes(old, got) <= delta_bytes(old, new) + 16


def test_fine_tuned_weights_cost_less_than_half_when_snapped() -> None:
    before, after = tuned(1, 60_000, 0.02)
    old, new = (onnx_of({"w": (TensorProto.FLOAT, held["f32"])}) for held in (before, after))
    got, report = snapped_of(old, new, 14)
    assert 2 * delta_bytes(old, got) < delta_bytes(old, new)
    assert report.words_changed > 50_000
    assert find_tensors(io.BytesIO(got), len(got)) == find_tensors(io.BytesIO(new), len(new))


def test_a_tensor_of_several_pieces_is_snapped_as_one() -> None:
    before, after = tuned(2, 600_000, 0.02)
    old, new = (safetensors_of({"w": ("F32", held["f32"])}) for held in (before, after))
    got, report = snapped_of(old, new, 14)
    form, start = FORMS["f32"], len(new) - len(after["f32"])
    whole = snap_words(after["f32"], before["f32"], form, bits=14, floor=report.tensors[0].floor)
    assert got[start:] == whole.content
    assert report.words_changed == whole.words_changed


def test_errors_are_as_often_up_as_down() -> None:
    before, after = tuned(4, 60_000, 0.1)
    snapped = snap_words(after["f32"], before["f32"], FORMS["f32"], bits=14, floor=2.0**-5)
    moved, wanted = (np.frombuffer(c, "<f4").astype("f8") for c in (snapped.content, after["f32"]))
    errors = moved - wanted
    assert abs(errors.mean()) < 0.05 * np.abs(errors).mean()


@pytest.mark.parametrize("bits", (0, 23, -1))
def test_bits_that_cannot_be_snapped_are_refused(bits: int) -> None:
    with pytest.raises(Rejected, match="1 to 22 can"):
        Snapper(io.BytesIO(), io.BytesIO(), bits=bits)


def test_what_is_no_model_stays_as_it_is() -> None:
    assert snapped_of(b"old" * 400, b"new" * 400, 14)[0] == b"new" * 400
