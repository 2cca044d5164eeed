"""Distributions: their counts are exact, their values within the stated error, and they merge in any order."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.telemetry.numbers import Reader, Unreadable, put_signed, put_text, put_unsigned
from skerry.telemetry.sketch import (
    SCALE,
    Sketch,
    mean,
    merge_sketches,
    put_sketch,
    quantile,
    read_sketch,
    relative_error,
    sketch_of,
    sketch_of_buckets,
    sketch_of_exponential,
)

SAMPLES = st.lists(st.floats(-1e6, 1e6), max_size=60)
WILD = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30)
MODEST = st.lists(st.floats(1e-3, 1e2) | st.floats(-1e2, -1e-3) | st.just(0.0), min_size=1, max_size=80)


def test_the_stated_error_of_scale_5_is_below_one_and_a_tenth_percent() -> None:
    assert relative_error(SCALE) <= 0.011


@given(MODEST, st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error_of_the_sample_at_its_rank(
    samples: list[float], share: float
) -> None:
    exact = sorted(samples)[max(math.ceil(share * len(samples)), 1) - 1]
    told = quantile(sketch_of(samples), share)
    assert told is not None
    assert abs(told - exact) <= relative_error(SCALE) * abs(exact) * (1 + 1e-9)


@given(SAMPLES, SAMPLES, SAMPLES)
def test_sketches_merge_in_any_order_and_grouping_to_the_sketch_of_all(
    one: list[float], two: list[float], three: list[float]
) -> None:
    a, b, c = map(sketch_of, (one, two, three))
    whole = merge_sketches((sketch_of([*one, *two, *three]),))
    assert merge_sketches((a, merge_sketches((b, c)))) == whole
    assert merge_sketches((merge_sketches((c, a)), b)) == whole


@given(WILD)
def test_a_sketch_comes_back_from_its_bytes_whatever_was_counted(samples: list[float]) -> None:
    out = bytearray()
    sketch = sketch_of(samples)
    put_sketch(out, sketch)
    reader = Reader(bytes(out))
    assert read_sketch(reader) == sketch
    assert reader.at_end
    assert sketch.count == sum(map(math.isfinite, samples))


def test_a_sketch_of_many_latencies_takes_about_six_hundred_bytes() -> None:
    chance = random.Random(5)
    out = bytearray()
    put_sketch(out, sketch_of(chance.lognormvariate(-3, 1) for _ in range(100_000)))
    assert len(out) < 900


def test_the_buckets_of_a_classic_histogram_count_at_their_bounds() -> None:
    sketch = sketch_of_buckets({0.1: 5, 0.5: 9, 1.0: 9, math.inf: 10})
    assert sketch.count == 10
    assert quantile(sketch, 0.5) == pytest.approx(0.1, rel=0.011)
    assert quantile(sketch, 0.9) == pytest.approx(0.5, rel=0.011)
    assert quantile(sketch, 1.0) == pytest.approx(2.0, rel=0.011)


def test_buckets_that_fall_never_count_below_nothing() -> None:
    assert sketch_of_buckets({1.0: 5, 2.0: 3, 4.0: 6}).count == 6
    assert sketch_of_buckets({}).count == 0
    assert sketch_of_buckets({-5.0: 2, math.inf: 3}).count == 3


def test_finer_buckets_of_others_become_ours_and_lose_no_count() -> None:
    half = sketch_of_exponential(8, 100, [1] * 1000, zeros=7)
    assert half.total == 1007
    assert half.scale == SCALE
    with pytest.raises(ValueError, match="out of range"):
        sketch_of_exponential(21, 0, [1])


def test_a_mean_of_a_sketch_has_the_error_of_its_values() -> None:
    assert mean(sketch_of([1.0, 2.0, 3.0])) == pytest.approx(2.0, rel=0.011)
    assert mean(Sketch()) is None
    assert quantile(Sketch(), 0.5) is None


@given(st.lists(st.integers(-(2**60), 2**60)))
def test_numbers_come_back_from_their_bytes(numbers: list[int]) -> None:
    out = bytearray()
    for number in numbers:
        put_signed(out, number)
        put_unsigned(out, abs(number))
    reader = Reader(bytes(out))
    assert [(reader.signed(), reader.unsigned()) for _ in numbers] == [(n, abs(n)) for n in numbers]


@pytest.mark.parametrize("content", (b"", b"\x80", b"\xff" * 40))
def test_bytes_that_are_no_number_are_refused(content: bytes) -> None:
    with pytest.raises(Unreadable):
        Reader(content).unsigned()


def test_a_text_is_bounded_and_utf_8() -> None:
    out = bytearray()
    put_text(out, "naïve")
    assert Reader(bytes(out)).text(most=10) == "naïve"
    with pytest.raises(Unreadable):
        Reader(bytes(out)).text(most=3)
    with pytest.raises(Unreadable):
        Reader(b"\x02\xff\xff").text(most=10)
