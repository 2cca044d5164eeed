"""Distributions as base-2 exponential histograms: mergeable, exact in their counts, with a stated relative error.

Source: OpenTelemetry metrics data model, "ExponentialHistogram"
(https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram). At scale 5 a bucket is 2^(1/32)
wide; the value told for it is that for which the relative error is least, 1.1 % at most. Where values span more than
`MAX_BUCKETS` buckets (a factor of a million), neighbours merge and the error doubles.

Rules: a sketch is integers only, so sketches merge exactly, in any order and grouping. It has no sum: a mean of it
has the error of its values.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate

import msgspec

from skerry.spec.metrics import (
    MAX_BUCKETS,
    MAX_INDEX,
    MAX_SCALE,
    MIN_SCALE,
    Histogram,
    at_scale,
    histogram_of,
    merge_histograms,
)
from skerry.telemetry.numbers import Reader, Unreadable, put_signed, put_unsigned

SCALE = 5
EMPTY = Histogram(scale=SCALE)
LARGEST, SMALLEST = 1e300, 1e-300


class Sketch(msgspec.Struct, frozen=True):
    """The positive samples and those of 0; and the magnitudes of the negative ones."""

    positive: Histogram = EMPTY
    negative: Histogram = EMPTY

    @property
    def count(self) -> int:
        """How many samples."""
        return self.positive.total + self.negative.total


def relative_error(scale: int) -> float:
    """Return the largest relative error of a quantile at a scale."""
    base = math.exp2(math.exp2(-scale))
    return (base - 1) / (base + 1)


def sketch_of(samples: Iterable[float]) -> Sketch:
    """Return the sketch of finite samples; others are left out."""
    finite = [min(max(sample, -LARGEST), LARGEST) for sample in samples if math.isfinite(sample)]
    positive = [sample if sample >= SMALLEST else 0.0 for sample in finite if sample >= 0]
    negative = [max(-sample, SMALLEST) for sample in finite if sample < 0]
    return Sketch(
        histogram_of(positive, scale=SCALE),
        histogram_of(negative, scale=SCALE) if negative else EMPTY,
    )


def sketch_of_buckets(upto: Mapping[float, int]) -> Sketch:
    """Return the sketch of a histogram with bounds: how many samples were at most each; each counts as its bound.

    What is above the last finite bound counts as twice that.
    """
    finite = [bound for bound in upto if math.isfinite(bound)]
    beyond = min(max(finite, default=0.5) * 2, LARGEST) if max(finite, default=0.5) > 0 else 1.0
    parts: list[Sketch] = []
    before = 0
    for bound in sorted(upto):
        count = max(upto[bound], before) - before
        if count:
            parts.append(_many(beyond if bound == math.inf else bound, count))
        before += count
    return merge_sketches(parts)


def sketch_of_exponential(scale: int, offset: int, counts: Iterable[int], *, zeros: int = 0) -> Histogram:
    """Return a half of a sketch from buckets of another scale, as OpenTelemetry tells them.

    Raises:
        ValueError: there are no such numbers.
    """
    if not MIN_SCALE <= scale <= MAX_SCALE or abs(offset) > MAX_INDEX // 2:
        raise ValueError("a scale or offset out of range")
    parts = [EMPTY]
    whole = list(counts)
    for first in range(0, len(whole), MAX_BUCKETS):
        some = whole[first : first + MAX_BUCKETS]
        parts.append(
            at_scale(Histogram(scale=scale, offset=offset + first, counts=tuple(some)), min(scale, SCALE))
        )
    return merge_histograms([*parts, Histogram(scale=SCALE, zeros=zeros)])


def merge_sketches(sketches: Iterable[Sketch]) -> Sketch:
    """Return the sum; of none, an empty sketch."""
    parts = list(sketches)
    return Sketch(
        merge_histograms([EMPTY, *(part.positive for part in parts)]),
        merge_histograms([EMPTY, *(part.negative for part in parts)]),
    )


def quantile(sketch: Sketch, share: float) -> float | None:
    """Return the value that a `share` (0 to 1) of the samples is not above; None without samples."""
    rank = max(math.ceil(share * sketch.count), 1)
    if not sketch.count:
        return None
    for value, count in _values(sketch):
        rank -= count
        if rank <= 0:
            return value
    raise AssertionError("the ranks of a sketch end at its count")


def counts_upto(sketch: Sketch, edges: Iterable[float]) -> list[int]:
    """Return how many samples are at most each of rising edges.

    Exact for edges that are bounds of buckets, as told at the sketch's scale; else a bucket counts where most of it is.
    """
    wanted = list(edges)
    found = [0] * len(wanted)
    for value, count in _values(sketch):
        place = bisect_left(wanted, value)
        if place < len(found):
            found[place] += count
    return list(accumulate(found))


def mean(sketch: Sketch) -> float | None:
    """Return the mean, with the relative error of the values; None without samples."""
    if not sketch.count:
        return None
    return math.fsum(value / sketch.count * count for value, count in _values(sketch))


def put_sketch(out: bytearray, sketch: Sketch) -> None:
    """Append a sketch: of each half the scale, zeros, offset, and the counts with runs of nothing as one number."""
    for half in (sketch.positive, sketch.negative):
        put_signed(out, half.scale)
        put_unsigned(out, half.zeros)
        put_unsigned(out, len(half.counts))
        if half.counts:
            put_signed(out, half.offset)
        for count in half.counts:
            put_unsigned(out, count)


def read_sketch(reader: Reader) -> Sketch:
    """Return the sketch that comes next.

    Raises:
        Unreadable: there is none.
    """
    return Sketch(_read_half(reader), _read_half(reader))


def _read_half(reader: Reader) -> Histogram:
    scale, zeros, length = reader.signed(), reader.unsigned(), reader.unsigned()
    if not MIN_SCALE <= scale <= MAX_SCALE or length > MAX_BUCKETS:
        raise Unreadable("a sketch is out of range")
    offset = reader.signed() if length else 0
    counts = tuple(reader.unsigned() for _ in range(length))
    try:
        return Histogram(scale=scale, offset=offset, counts=counts, zeros=zeros)
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _many(value: float, count: int) -> Sketch:
    one = sketch_of([value])
    scaled = msgspec.structs.replace
    return Sketch(
        scaled(
            one.positive,
            counts=tuple(each * count for each in one.positive.counts),
            zeros=one.positive.zeros * count,
        ),
        scaled(one.negative, counts=tuple(each * count for each in one.negative.counts)),
    )


def _values(sketch: Sketch) -> Iterable[tuple[float, int]]:
    """Yield what is told for each bucket, rising, and how many samples it has."""
    negative, positive = sketch.negative, sketch.positive
    for place in range(len(negative.counts) - 1, -1, -1):
        if negative.counts[place]:
            yield -_told(negative, place), negative.counts[place]
    if zeros := negative.zeros + positive.zeros:
        yield 0.0, zeros
    for place, count in enumerate(positive.counts):
        if count:
            yield _told(positive, place), count


def _told(half: Histogram, place: int) -> float:
    """Return the value between a bucket's bounds that is as far from the one as from the other, relatively."""
    power = min(max((half.offset + place) * math.exp2(-half.scale), -1020.0), 1020.0)
    base = math.exp2(min(math.exp2(-half.scale), 1000.0))
    return min(math.exp2(power) * (2 * base / (base + 1)), LARGEST)
