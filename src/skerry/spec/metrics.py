"""What hosts measure of an application: rates, bounded means and histograms, each of one window of event time.

Rules: a value is a sum over samples, of integers only, so values of one kind merge exactly and in any order. Sizes
are bounded. What does not fit together (a mean of other bounds) is an error of the caller, never a wrong sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Annotated, Literal

from msgspec import Meta

from skerry.kit.errors import Rejected
from skerry.spec.metadata import Name, Part
from skerry.spec.report import MAX_NUMBER, Instant

MetricName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,126}$",
        description="a metric's name: letters, digits and _ . : -, 127 at most",
    ),
]
Quality = Literal["rate", "mean", "quantile"]
Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]

MEAN_STEPS = 1 << 16
"""A mean's samples are counted in steps of this share of the distance between its bounds."""
MAX_BUCKETS = 640
"""Buckets of a histogram: at scale 6 (1.1 % wide) they span a factor of 1,000."""
MIN_SCALE, MAX_SCALE = -10, 20
MAX_INDEX = 1 << 31


class Rate(Part, frozen=True, kw_only=True, tag_field="kind", tag="rate"):
    """How many of `total` were `bad`."""

    bad: Count
    total: Count

    def __post_init__(self) -> None:
        if self.bad > self.total:
            raise ValueError(f"{self.bad} bad of {self.total}")


class Mean(Part, frozen=True, kw_only=True, tag_field="kind", tag="mean"):
    """Sum and sum of squares of samples between `low` and `high`, in steps of `(high - low) / MEAN_STEPS` above `low`.

    Samples outside the bounds have been moved to the nearer one.
    """

    count: Count
    total: Count
    squares: Count
    low: Finite
    high: Finite

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"bounds {self.low} to {self.high} hold nothing")
        if self.total > self.count * MEAN_STEPS or self.squares > self.total * MEAN_STEPS:
            raise ValueError("the sums are larger than the bounds allow")
        if self.total**2 > self.count * self.squares:
            raise ValueError("the sum of squares is smaller than the sum allows")


class Histogram(Part, frozen=True, kw_only=True, tag_field="kind", tag="histogram"):
    """Base-2 exponential buckets, as OpenTelemetry's: bucket i counts samples in (b^i, b^(i+1)], b = 2^(2^-scale).

    `counts[k]` is the bucket `offset + k`; `zeros` counts samples of 0 or less. Made by `histogram_of` and
    `merge_histograms`, it has no empty bucket at either end.
    """

    scale: Annotated[int, Meta(ge=MIN_SCALE, le=MAX_SCALE)]
    offset: Annotated[int, Meta(ge=-MAX_INDEX, le=MAX_INDEX)] = 0
    counts: Annotated[tuple[Count, ...], Meta(max_length=MAX_BUCKETS)] = ()
    zeros: Count = 0

    def __post_init__(self) -> None:
        last = self.offset + len(self.counts)
        if self.offset < -1100 * 2.0**self.scale - 1 or last > 1024 * 2.0**self.scale + 1:
            raise ValueError("there are no numbers that small or large")

    @property
    def total(self) -> int:
        """How many samples."""
        return self.zeros + sum(self.counts)


Value = Rate | Mean | Histogram


class MetricWindow(Part, frozen=True, kw_only=True):
    """One metric of one component of a release on one host, over the event time from `begin` up to `end`.

    A window that is reported again replaces what was reported of it before.
    """

    application: Name
    release: Annotated[str, Meta(max_length=256)]
    component: Name
    metric: MetricName
    begin: Instant
    end: Instant
    value: Value

    def __post_init__(self) -> None:
        if not self.begin < self.end:
            raise ValueError("a window ends after it begins")


def mean_of(samples: Iterable[float], *, low: float, high: float) -> Mean:
    """Return the sums of samples; what is outside the bounds counts as the nearer one. Samples are numbers, not NaN."""
    count = total = squares = 0
    for sample in samples:
        step = round((min(max(sample, low), high) - low) / (high - low) * MEAN_STEPS)
        count, total, squares = count + 1, total + step, squares + step * step
    return Mean(count=count, total=total, squares=squares, low=low, high=high)


def histogram_of(samples: Iterable[float], *, scale: int = 6) -> Histogram:
    """Return the buckets of samples, as fine as `scale` where they fit `MAX_BUCKETS`; finite samples only."""
    buckets: dict[int, int] = {}
    zeros = 0
    for sample in samples:
        if sample <= 0:
            zeros += 1
        else:
            index = math.ceil(math.log2(sample) * 2.0**scale) - 1
            buckets[index] = buckets.get(index, 0) + 1
    return _fitted(buckets, scale, zeros)


def at_scale(histogram: Histogram, scale: int) -> Histogram:
    """Return the same counts in buckets of a scale that is not finer; `scale` above the histogram's is ignored."""
    return _fitted(_buckets(histogram), histogram.scale, histogram.zeros, at_most=scale)


def merge_rates(rates: Iterable[Rate]) -> Rate:
    """Return the sum."""
    both = tuple(rates)
    return Rate(bad=sum(rate.bad for rate in both), total=sum(rate.total for rate in both))


def merge_means(means: Iterable[Mean]) -> Mean:
    """Return the sum of at least one mean.

    Raises:
        Rejected: there is none, or their bounds differ.
    """
    parts = tuple(means)
    bounds = {(mean.low, mean.high) for mean in parts}
    if len(bounds) != 1:
        raise Rejected(
            "metrics.bounds", "means merge only when their bounds are the same", bounds=len(bounds)
        )
    ((low, high),) = bounds
    return Mean(
        count=sum(mean.count for mean in parts),
        total=sum(mean.total for mean in parts),
        squares=sum(mean.squares for mean in parts),
        low=low,
        high=high,
    )


def merge_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum of at least one, at the finest scale that all have and at which it fits `MAX_BUCKETS`.

    Raises:
        Rejected: there is none.
    """
    parts = tuple(histograms)
    if not parts:
        raise Rejected("metrics.empty", "there is no histogram to merge")
    return reduce(_merge_two, parts)


def _merge_two(one: Histogram, other: Histogram) -> Histogram:
    scale = min(one.scale, other.scale)
    buckets: dict[int, int] = {}
    for part in (one, other):
        for index, count in _buckets(part).items():
            coarse = index >> (part.scale - scale)
            buckets[coarse] = buckets.get(coarse, 0) + count
    return _fitted(buckets, scale, one.zeros + other.zeros)


def _buckets(histogram: Histogram) -> dict[int, int]:
    return {histogram.offset + place: count for place, count in enumerate(histogram.counts) if count}


def _fitted(buckets: Mapping[int, int], scale: int, zeros: int, *, at_most: int = MAX_SCALE) -> Histogram:
    """Return the buckets at the finest scale, of those allowed, at which they fit."""
    if not buckets:
        return Histogram(scale=max(min(scale, at_most), MIN_SCALE), zeros=zeros)
    first, last = min(buckets), max(buckets)
    shift = max(scale - at_most, 0)
    # A bucket's number at half the scale is half its number: the one base is the other's square.
    while (last >> shift) - (first >> shift) >= MAX_BUCKETS:
        shift += 1
    counts = [0] * ((last >> shift) - (first >> shift) + 1)
    for index, count in buckets.items():
        counts[(index >> shift) - (first >> shift)] += count
    return Histogram(scale=scale - shift, offset=first >> shift, counts=tuple(counts), zeros=zeros)
