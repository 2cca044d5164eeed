"""Words with and without numpy: the same bytes, and every step can be undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.delivery import planes
from skerry.delivery.word_shape import EXPONENTS, WordShape
from skerry.delivery.words import choose_words
from tests.unit.delta_files_of import PLAIN, WITH_NUMPY, noise

pytestmark = pytest.mark.delivery

SHAPES = [WordShape(1), WordShape(2), WordShape(4), *(WordShape(size, order) for size, order in EXPONENTS)]


@st.composite
def word_pairs(draw: st.DrawFn) -> tuple[WordShape, bytes, bytes]:
    """Draw a shape, and new and old words: far apart, near each other, or at the edges."""
    shape = draw(st.sampled_from(SHAPES))
    bits = 8 * shape.word_bytes
    edges = st.sampled_from((0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1))
    words = st.one_of(st.integers(0, (1 << bits) - 1), edges)
    old = draw(st.lists(words, min_size=1, max_size=60))
    steps = draw(st.lists(st.one_of(st.integers(-3, 3), words), min_size=len(old), max_size=len(old)))
    new = [(word + step) % (1 << bits) for word, step in zip(old, steps, strict=True)]
    packed = [b"".join(word.to_bytes(shape.word_bytes, "little") for word in run) for run in (new, old)]
    return shape, packed[0], packed[1]


@given(word_pairs())
def test_both_implementations_give_the_same_bytes(case: tuple[WordShape, bytes, bytes]) -> None:
    shape, new, old = case
    size = shape.word_bytes
    coded = PLAIN.difference(new, old, size)
    assert coded == WITH_NUMPY.difference(new, old, size)
    assert PLAIN.rotate(new, size) == WITH_NUMPY.rotate(new, size)
    assert PLAIN.split(new, size) == WITH_NUMPY.split(new, size)
    if shape.order:
        assert PLAIN.sort(coded, old, shape) == WITH_NUMPY.sort(coded, old, shape)
    for bits in (4, 2):
        assert PLAIN.narrow(new, bits) == WITH_NUMPY.narrow(new, bits)


@pytest.mark.parametrize("words", (PLAIN, WITH_NUMPY), ids=("plain", "numpy"))
@given(case=word_pairs())
def test_every_step_can_be_undone(words: object, case: tuple[WordShape, bytes, bytes]) -> None:
    chosen = PLAIN if words is PLAIN else WITH_NUMPY
    shape, new, old = case
    size = shape.word_bytes
    assert chosen.restore(chosen.difference(new, old, size), old, size) == new
    assert chosen.rotate_back(chosen.rotate(new, size), size) == new
    assert chosen.join(chosen.split(new, size)) == new
    if shape.order:
        assert chosen.unsort(chosen.sort(new, old, shape), old, shape) == new
    for bits in (4, 2):
        assert chosen.widen(chosen.narrow(new, bits), bits, len(new)) == new


@given(word_pairs())
def test_differences_are_zig_zag(case: tuple[WordShape, bytes, bytes]) -> None:
    shape, new, old = case
    size, bits = shape.word_bytes, 8 * shape.word_bytes
    coded = PLAIN.difference(new, old, size)
    for at in range(0, len(new), size):
        step = int.from_bytes(new[at : at + size], "little") - int.from_bytes(old[at : at + size], "little")
        step = (step + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
        assert int.from_bytes(coded[at : at + size], "little") == (2 * step if step >= 0 else -2 * step - 1)


@given(word_pairs())
def test_payloads_of_one_implementation_are_read_by_the_other(case: tuple[WordShape, bytes, bytes]) -> None:
    shape, new, old = case
    payload = planes.pack_difference(PLAIN, new, old, shape, levels=(1,))
    assert payload == planes.pack_difference(WITH_NUMPY, new, old, shape, levels=(1,))
    assert planes.unpack_difference(WITH_NUMPY, payload, old, shape) == new
    assert planes.unpack_difference(PLAIN, payload, old, shape) == new
    full = planes.pack_full(WITH_NUMPY, new, WordShape(shape.word_bytes), levels=(1,))
    assert planes.unpack_full(PLAIN, full, len(new), WordShape(shape.word_bytes)) == new


@pytest.mark.parametrize("values", ((0, 1), (0, 1, 2, 16, 32), (0, 17), tuple(range(9))))
def test_narrow_planes_are_read_back(values: tuple[int, ...]) -> None:
    # Few values in no order: planes of fewer bits are smaller, of each width in one of the cases.
    new = bytes(values[value % len(values)] for value in noise(40_001))
    old = bytes(len(new))
    coded = planes.pack_difference(PLAIN, new, old, WordShape(1), levels=(1,))
    assert len(coded) < len(new) // 2
    assert planes.unpack_difference(PLAIN, coded, old, WordShape(1)) == new
    assert planes.unpack_difference(WITH_NUMPY, coded, old, WordShape(1)) == new


def test_numpy_serves_where_it_is_installed() -> None:
    assert choose_words() is WITH_NUMPY
