"""Metrics of hosts: sums that merge exactly, in any order, and stay within their bounds."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.canonical import UNREADABLE, encode_canonical
from skerry.kit.errors import Rejected
from skerry.spec.metrics import (
    MAX_BUCKETS,
    MEAN_STEPS,
    Histogram,
    Mean,
    MetricWindow,
    Rate,
    at_scale,
    histogram_of,
    mean_of,
    merge_histograms,
    merge_means,
    merge_rates,
)

pytestmark = pytest.mark.rollout

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
latencies = st.lists(st.floats(1e-9, 1e9), max_size=20)


def counted(samples: list[float], scale: int) -> Histogram:
    return histogram_of(samples, scale=scale)


histograms = st.builds(counted, latencies, st.integers(0, 8))


@given(st.lists(histograms, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_histograms_merge_the_same_in_any_order_and_grouping(
    parts: list[Histogram], shuffler: random.Random
) -> None:
    whole = merge_histograms(parts)
    shuffler.shuffle(parts)
    assert merge_histograms(parts) == whole
    middle = len(parts) // 2
    groups = [merge_histograms(group) for group in (parts[:middle], parts[middle:]) if group]
    assert merge_histograms(groups) == whole
    assert whole.total == sum(part.total for part in parts)
    assert len(whole.counts) <= MAX_BUCKETS


@given(latencies, st.integers(0, 8), st.integers(0, 8))
def test_a_coarser_histogram_is_what_would_have_been_counted_at_its_scale(
    samples: list[float], fine: int, coarse: int
) -> None:
    histogram = at_scale(histogram_of(samples, scale=fine), coarse)
    assert histogram == histogram_of(samples, scale=min(fine, coarse, histogram.scale))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=1), st.integers(0, 12))
def test_a_sample_lies_in_its_bucket(samples: list[float], scale: int) -> None:
    histogram = histogram_of(samples, scale=scale)
    place = math.log2(samples[0]) * 2**scale
    assert histogram.offset - 1e-6 <= place <= histogram.offset + 1 + 1e-6


def test_powers_of_two_end_the_bucket_below_them() -> None:
    assert histogram_of([8.0], scale=0).offset == 2
    assert histogram_of([0.0, -1.0]).zeros == 2


@given(st.lists(st.lists(st.floats(-50, 250), max_size=8), min_size=1, max_size=5))
def test_means_merge_into_what_all_their_samples_make(parts: list[list[float]]) -> None:
    means = [mean_of(part, low=0, high=200) for part in parts]
    whole = mean_of([sample for part in parts for sample in part], low=0, high=200)
    assert merge_means(means) == whole == merge_means(reversed(means))


def test_means_of_other_bounds_do_not_merge() -> None:
    with pytest.raises(Rejected):
        merge_means([mean_of([1], low=0, high=2), mean_of([1], low=0, high=3)])
    with pytest.raises(Rejected):
        merge_histograms([])


def test_rates_merge() -> None:
    assert merge_rates([Rate(bad=1, total=2), Rate(bad=0, total=5)]) == Rate(bad=1, total=7)
    assert merge_rates([]) == Rate(bad=0, total=0)


@pytest.mark.parametrize(
    "value",
    (
        Rate(bad=3, total=1 << 61),
        mean_of([0.25, 0.5], low=0, high=1),
        histogram_of([0.01, 0.02, 0.4]),
    ),
)
def test_a_window_comes_back_from_its_canonical_bytes(value: Rate | Mean | Histogram) -> None:
    window = MetricWindow(
        application="reader", release="reader@2", component="main", metric="errors", begin=NOON,
        end=NOON + timedelta(minutes=5), value=value,
    )  # fmt: skip
    assert msgspec.json.decode(encode_canonical(window), type=MetricWindow) == window


@pytest.mark.parametrize(
    "text",
    (
        b'{"kind":"rate","bad":2,"total":1}',
        b'{"kind":"rate","bad":-1,"total":1}',
        b'{"kind":"rate","bad":1,"total":9223372036854775807}',
        b'{"kind":"mean","count":1,"total":70000,"squares":1,"low":0,"high":1}',
        b'{"kind":"mean","count":2,"total":10,"squares":49,"low":0,"high":1}',
        b'{"kind":"mean","count":0,"total":0,"squares":0,"low":1,"high":1}',
        b'{"kind":"histogram","scale":21}',
        b'{"kind":"histogram","scale":-10,"offset":2000000000,"counts":[1]}',
        b'{"kind":"histogram","scale":0,"counts":[' + b"1," * MAX_BUCKETS + b"1]}",
        b'{"kind":"median"}',
    ),
)
def test_what_cannot_have_been_measured_is_refused(text: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(text, type=Rate | Mean | Histogram)


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="ends after it begins"):
        MetricWindow(
            application="a",
            release="",
            component="c",
            metric="m",
            begin=NOON,
            end=NOON,
            value=Rate(bad=0, total=0),
        )


def test_a_mean_counts_in_steps_of_its_bounds() -> None:
    mean = mean_of([-1.0, 0.5, 9.0], low=0, high=1)
    assert (mean.count, mean.total) == (3, MEAN_STEPS // 2 + MEAN_STEPS)
