"""From what an application pushes to what happened since the last time: the same windows as from pages that are read.

Rules: a cumulative point counts from the one before of the same start; where the start is another, or a count fell, the
application began anew, and all of it counts. The first point of a start that is not new to us sets the beginning only
when it began before we listened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from skerry.telemetry.naming import SeriesRoom, clean_series
from skerry.telemetry.otlp import Buckets, Point
from skerry.telemetry.sketch import Sketch, sketch_of_buckets, sketch_of_exponential
from skerry.telemetry.windows import Counter, Distribution, Kind, SeriesKey, WindowValue, gauge_of, merge_two

MAX_BEFORE = 4000
"""How many series are remembered from one request to the next."""

_KINDS: Mapping[str, Kind] = {
    "gauge": "gauge",
    "counter": "counter",
    "histogram": "distribution",
    "exponential": "distribution",
}


class PushReader:
    """Reads the points of one application's component. `where` are labels of where it runs, which nothing overrides."""

    def __init__(self, where: Mapping[str, str], *, most: int, since_ns: int) -> None:
        self._where = dict(where)
        self._room = SeriesRoom(most)
        self._since_ns = since_ns
        self._before: dict[SeriesKey, Point] = {}

    @property
    def refused(self) -> int:
        """How many points were refused."""
        return self._room.refused

    @property
    def worst(self) -> str:
        """The name that most of the refused had."""
        return self._room.worst

    def read(self, points: Iterable[Point]) -> dict[SeriesKey, WindowValue]:
        """Return what happened since the points before; a point that makes no sense is left out."""
        found: dict[SeriesKey, WindowValue] = {}
        for point in points:
            key = self._key(point)
            if not self._room.admits(key):
                continue
            try:
                value = self._value(key, point)
            except ValueError:
                continue
            if value is not None and value.count:
                found[key] = merge_two(found[key], value) if key in found else value
        return found

    def _key(self, point: Point) -> SeriesKey:
        own = {
            (f"exported_{name}" if name in self._where else name): value for name, value in point.attributes
        }
        return clean_series(point.name, {**own, **self._where}.items(), _KINDS[point.kind])

    def _value(self, key: SeriesKey, point: Point) -> WindowValue | None:
        if point.kind == "gauge":
            return gauge_of(point.value) if math.isfinite(point.value) else None
        if point.delta:
            return _whole(point)
        before = self._before.get(key)
        if before is None and len(self._before) >= MAX_BEFORE:
            del self._before[next(iter(self._before))]
        self._before[key] = point
        if before is None:
            # Begun before we listened: what it counted until now was perhaps counted already.
            return (
                _whole(point)
                if point.start >= self._since_ns
                else Counter(1, 0.0)
                if _is_counter(point)
                else None
            )
        return _whole(point) if point.start != before.start else _since(before, point)


def _is_counter(point: Point) -> bool:
    return point.kind == "counter"


def _whole(point: Point) -> WindowValue | None:
    if point.kind == "counter":
        return Counter(1, point.value) if math.isfinite(point.value) and point.value >= 0 else None
    if point.kind == "histogram":
        return Distribution(_explicit(point.bounds, point.counts))
    positive = sketch_of_exponential(
        point.scale, point.positive.offset, point.positive.counts, zeros=point.zeros
    )
    return Distribution(
        Sketch(positive, sketch_of_exponential(point.scale, point.negative.offset, point.negative.counts))
    )


def _since(before: Point, point: Point) -> WindowValue | None:
    """Return what was added from one point to the next; the whole of the later where anything fell."""
    if point.kind == "counter":
        fell = point.value < before.value
        return _whole(point) if fell else Counter(1, point.value - before.value)
    if point.kind == "histogram":
        if point.bounds != before.bounds or len(point.counts) != len(before.counts):
            return _whole(point)
        counts = tuple(now - then for now, then in zip(point.counts, before.counts, strict=True))
        fell = any(count < 0 for count in counts)
        return _whole(point) if fell else Distribution(_explicit(point.bounds, counts))
    return _exponential_since(before, point)


def _exponential_since(before: Point, point: Point) -> WindowValue | None:
    shift = before.scale - point.scale
    if shift < 0:  # a scale only ever falls while a start lasts
        return _whole(point)
    halves = [
        _difference(then, now, shift)
        for then, now in ((before.positive, point.positive), (before.negative, point.negative))
    ]
    zeros = point.zeros - before.zeros
    positive, negative = halves
    if positive is None or negative is None or zeros < 0:
        return _whole(point)
    return Distribution(
        Sketch(
            sketch_of_exponential(point.scale, positive.offset, positive.counts, zeros=zeros),
            sketch_of_exponential(point.scale, negative.offset, negative.counts),
        )
    )


def _difference(then: Buckets, now: Buckets, shift: int) -> Buckets | None:
    """Return what was added to each bucket; None where one has fewer. `then` may be finer by `shift`."""
    counts = {now.offset + place: count for place, count in enumerate(now.counts)}
    for place, count in enumerate(then.counts):
        if count:
            index = (then.offset + place) >> shift
            counts[index] = counts.get(index, 0) - count
    if any(count < 0 for count in counts.values()):
        return None
    return Buckets(now.offset, tuple(counts[now.offset + place] for place in range(len(now.counts))))


def _explicit(bounds: tuple[float, ...], counts: tuple[int, ...]) -> Sketch:
    """Return the sketch of a histogram with bounds, of which the last bucket is open.

    Raises:
        ValueError: bounds and counts do not fit together.
    """
    if not counts:
        return Sketch()
    if len(counts) != len(bounds) + 1 or list(bounds) != sorted(set(bounds)) or any(c < 0 for c in counts):
        raise ValueError("bounds and counts do not fit together")
    upto: dict[float, int] = {}
    total = 0
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        total += count
        upto[bound] = total
    return sketch_of_buckets(upto)
