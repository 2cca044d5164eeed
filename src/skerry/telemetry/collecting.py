"""From two looks at an application's endpoint to what happened in between.

Rules: counters count from the look before. Where any of them is smaller than it was, the application has begun anew,
and all of them count from nothing; so does a series that was not there before. With no look before of the same run,
counters only set a beginning. What is inconsistent is bounded, never negative: more bad ones than there were at all
count as all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from skerry.spec.application import Collected, MeanMetric, MetricsEndpoint
from skerry.spec.metrics import (
    MAX_INDEX,
    MEAN_STEPS,
    Histogram,
    Mean,
    Rate,
    Value,
    mean_of,
    merge_histograms,
    merge_means,
    merge_rates,
)
from skerry.spec.series import SeriesSelector, parse_series
from skerry.telemetry.exposition import Exposition, Labels

SCALE = 6
MAX_COUNT = 1 << 40
"""Beyond this nobody counts between two looks; sums of a day of such looks still fit into what is stored."""
MAX_SUMMARISED = 1 << 12
LARGEST_BOUND, SMALLEST_BOUND = 1e300, 1e-300

Series = tuple[str, Labels]


class Look(msgspec.Struct, frozen=True):
    """What one look found of an application: its counters, and the values of gauges, both as wanted."""

    counters: Mapping[Series, float]
    gauges: Mapping[Series, float] = {}


def wanted_names(endpoint: MetricsEndpoint) -> frozenset[str]:
    """Return the names of the series that an endpoint's metrics are made of."""
    counters, gauges = _selectors(endpoint)
    return frozenset(one.name for one in (*counters, *gauges))


def take_look(endpoint: MetricsEndpoint, exposition: Exposition) -> Look:
    """Return what there is of the wanted series. What is no number is left out."""
    counters, gauges = _selectors(endpoint)
    return Look(_select(counters, exposition), _select(gauges, exposition))


def measure(endpoint: MetricsEndpoint, before: Look | None, after: Look) -> dict[str, Value]:
    """Return what was measured between two looks, by metric; a metric of which nothing is known is left out."""
    grown = _grown(before.counters, after.counters) if before is not None else {}
    measured = {metric.name: _measure(metric, grown, after.gauges) for metric in endpoint.collect}
    return {name: value for name, value in measured.items() if value is not None}


def merge_values(one: Value, other: Value) -> Value:
    """Return the sum of two values of one metric; of two that do not fit together, the second."""
    match one, other:
        case Rate(), Rate():
            return merge_rates((one, other))
        case Mean(), Mean() if (one.low, one.high) == (other.low, other.high):
            return merge_means((one, other))
        case Histogram(), Histogram():
            return merge_histograms((one, other))
        case _:
            return other


def _selectors(endpoint: MetricsEndpoint) -> tuple[list[SeriesSelector], list[SeriesSelector]]:
    counters: list[SeriesSelector] = []
    gauges: list[SeriesSelector] = []
    for metric in endpoint.collect:
        if metric.rate is not None:
            counters += [parse_series(metric.rate.bad), parse_series(metric.rate.total)]
        if metric.histogram is not None:
            counters.append(_part(metric.histogram, "_bucket"))
        if metric.mean is not None and metric.mean.summary is not None:
            counters += [_part(metric.mean.summary, part) for part in ("_sum", "_count")]
        if metric.mean is not None and metric.mean.gauge is not None:
            gauges.append(parse_series(metric.mean.gauge))
    return counters, gauges


def _part(text: str, suffix: str) -> SeriesSelector:
    selector = parse_series(text)
    return msgspec.structs.replace(selector, name=f"{selector.name}{suffix}")


def _select(selectors: Iterable[SeriesSelector], exposition: Exposition) -> dict[Series, float]:
    return {
        (selector.name, labels): value
        for selector in selectors
        for labels, value in exposition.of(selector.name).items()
        if math.isfinite(value) and selector.selects(dict(labels))
    }


def _grown(before: Mapping[Series, float], after: Mapping[Series, float]) -> dict[Series, float]:
    # A sum of what may be below 0 may fall by itself; it says nothing about a new beginning.
    anew = any(value < before.get(key, value) for key, value in after.items() if not key[0].endswith("_sum"))
    return {key: value if anew else value - before.get(key, 0.0) for key, value in after.items()}


def _measure(
    metric: Collected, grown: Mapping[Series, float], gauges: Mapping[Series, float]
) -> Value | None:
    if metric.rate is not None:
        total = _sum(parse_series(metric.rate.total), grown)
        bad = _sum(parse_series(metric.rate.bad), grown)
        return Rate(bad=min(_whole(bad or 0.0), _whole(total)), total=_whole(total)) if total else None
    if metric.histogram is not None:
        return _histogram(_part(metric.histogram, "_bucket"), grown)
    if metric.mean is not None:
        return _mean(metric.mean, grown, gauges)
    return None


def _matching(selector: SeriesSelector, values: Mapping[Series, float]) -> Iterable[tuple[Labels, float]]:
    for (name, labels), value in values.items():
        if name == selector.name and selector.selects(dict(labels)):
            yield labels, value


def _sum(selector: SeriesSelector, values: Mapping[Series, float]) -> float | None:
    found = [value for _, value in _matching(selector, values)]
    return _fsum(found) if found else None


def _fsum(values: Iterable[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return LARGEST_BOUND


def _whole(value: float) -> int:
    return round(min(max(value, 0.0), float(MAX_COUNT)))


def _mean(metric: MeanMetric, grown: Mapping[Series, float], gauges: Mapping[Series, float]) -> Mean | None:
    if metric.gauge is not None:
        samples = [value for _, value in _matching(parse_series(metric.gauge), gauges)]
        return mean_of(samples, low=metric.low, high=metric.high) if samples else None
    if metric.summary is None:
        return None
    total = _sum(_part(metric.summary, "_sum"), grown)
    all_of_them = _whole(_sum(_part(metric.summary, "_count"), grown) or 0.0)
    if total is None or not all_of_them:
        return None
    # Sums of squares of a day of looks have to fit into what is stored; beyond this they count for less.
    count = min(all_of_them, MAX_SUMMARISED)
    share = (total / all_of_them - metric.low) / (metric.high - metric.low)
    steps = round(min(max(share, 0.0), 1.0) * MEAN_STEPS * count)
    # The samples themselves are not known: as far apart as they can be is what nobody can be misled by.
    return Mean(count=count, total=steps, squares=steps * MEAN_STEPS, low=metric.low, high=metric.high)


def _histogram(selector: SeriesSelector, grown: Mapping[Series, float]) -> Histogram | None:
    """Return a classic histogram's samples, each as the upper bound of its bucket."""
    upto: dict[float, list[float]] = {}
    for labels, value in _matching(selector, grown):
        bound = _bound(dict(labels).get("le", ""))
        if bound is not None:
            upto.setdefault(bound, []).append(value)
    if not upto:
        return None
    finite = [bound for bound in upto if math.isfinite(bound) and bound > 0]
    beyond = max(finite, default=0.5) * 2
    parts: list[Histogram] = []
    before = 0
    for bound in sorted(upto):
        total = max(_whole(_fsum(upto[bound])), before)
        if total > before:
            parts.append(_bucket(bound if math.isfinite(bound) else beyond, total - before))
        before = total
    return merge_histograms(parts) if parts else None


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    if math.isnan(bound) or bound == -math.inf:
        return None
    return bound if bound == math.inf else min(bound, LARGEST_BOUND)


def _bucket(bound: float, count: int) -> Histogram:
    if bound <= 0:
        return Histogram(scale=SCALE, zeros=count)
    index = math.ceil(math.log2(max(bound, SMALLEST_BOUND)) * 2.0**SCALE) - 1
    assert abs(index) < MAX_INDEX
    return Histogram(scale=SCALE, offset=index, counts=(count,))
