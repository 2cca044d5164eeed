"""What happened in a window of event time: gauges, counters and distributions, and how windows become longer ones.

Rules: counts are whole numbers and never change by merging. A gauge is the least, the largest, the mean and the last
of its samples; a counter what was added; a distribution a sketch. Percentiles are never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from skerry.telemetry.sketch import Sketch, merge_sketches

MINUTE_S, TEN_MINUTES_S, HOUR_S = 60, 600, 3600
RESOLUTIONS_S = (MINUTE_S, TEN_MINUTES_S, HOUR_S)
MAX_COUNT = 1 << 62

Kind = Literal["gauge", "counter", "distribution"]
Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


class SeriesKey(msgspec.Struct, frozen=True, order=True):
    """What is measured, of what, and how it adds up."""

    name: str
    labels: Labels
    kind: Kind


class Gauge(msgspec.Struct, frozen=True, gc=False):
    """Samples of something that goes up and down."""

    count: int
    low: float
    high: float
    mean: float
    last: float


class Counter(msgspec.Struct, frozen=True, gc=False):
    """What was added, in `count` looks."""

    count: int
    increase: float


class Distribution(msgspec.Struct, frozen=True):
    """Samples of which the spread matters."""

    sketch: Sketch

    @property
    def count(self) -> int:
        """How many samples."""
        return self.sketch.count


WindowValue = Gauge | Counter | Distribution
Windows = Mapping[int, WindowValue]
"""By where they begin, in seconds of the epoch."""


def gauge_of(value: float) -> Gauge:
    """Return one sample."""
    return Gauge(1, value, value, value, value)


def merge_two(earlier: WindowValue, later: WindowValue) -> WindowValue:
    """Return both as one; of two kinds the later alone, whose series began anew."""
    match earlier, later:
        case Gauge(), Gauge():
            count = earlier.count + later.count
            mean = earlier.mean + (later.mean - earlier.mean) * (later.count / count)
            low, high = min(earlier.low, later.low), max(earlier.high, later.high)
            return Gauge(count, low, high, min(max(mean, low), high), later.last)
        case Counter(), Counter():
            return Counter(earlier.count + later.count, earlier.increase + later.increase)
        case Distribution(), Distribution():
            return Distribution(merge_sketches((earlier.sketch, later.sketch)))
        case _:
            return later


def merge_windows(one: Windows, other: Windows) -> dict[int, WindowValue]:
    """Return both, windows of one beginning as one; `other` counts as the later."""
    found = dict(one)
    for begin, value in other.items():
        before = found.get(begin)
        found[begin] = value if before is None else merge_two(before, value)
    return found


def coarsen_windows(windows: Windows, resolution_s: int) -> dict[int, WindowValue]:
    """Return what happened in longer windows, which begin at multiples of their length."""
    found: dict[int, WindowValue] = {}
    for begin in sorted(windows):
        at = begin - begin % resolution_s
        before = found.get(at)
        found[at] = windows[begin] if before is None else merge_two(before, windows[begin])
    return found


def merge_all(values: Iterable[WindowValue]) -> WindowValue | None:
    """Return all as one, the last of them the latest; None of none."""
    found: WindowValue | None = None
    sketches: list[Sketch] = []
    for value in values:
        # Of many sketches one sum at the end: each merge on the way would go over all buckets again.
        if isinstance(value, Distribution):
            sketches.append(value.sketch)
        else:
            found = value if found is None else merge_two(found, value)
    return Distribution(merge_sketches(sketches)) if sketches else found


class CounterReader:
    """Turns what a counter shows into what was added; begins anew where it fell. One for each life of its source."""

    def __init__(self) -> None:
        self._before: dict[SeriesKey, float] = {}
        self._looked = False

    def added(self, shown: Mapping[SeriesKey, float]) -> dict[SeriesKey, float]:
        """Return what was added since the look before; the first look only sets the beginning.

        A series that was not there before began at nothing, as did one that shows less than before.
        """
        found: dict[SeriesKey, float] = {}
        for key, value in shown.items():
            if not math.isfinite(value) or value < 0:
                continue
            before = self._before.get(key, 0.0 if self._looked else value)
            found[key] = value - before if value >= before else value
        self._before = {key: value for key, value in shown.items() if math.isfinite(value) and value >= 0}
        self._looked = True
        return found
