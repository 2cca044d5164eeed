"""Checks of the metrics that a component tells: each one way to measure, and series that can be read."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.kit.quantities import parse_duration
from skerry.spec.application import Collected, MeanMetric, MetricsEndpoint
from skerry.spec.checks_files import check_unique
from skerry.spec.problems import Problem
from skerry.spec.series import parse_series

EVERYTHING = "*"
MIN_INTERVAL_S, MAX_INTERVAL_S = 1.0, 300.0


def check_metrics(path: str, metrics: MetricsEndpoint) -> Iterator[Problem]:
    """Yield what is wrong with a component's metrics."""
    interval_s = parse_duration(metrics.interval)
    if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
        expected = f"expected 1s to 5m, got {metrics.interval}"
        yield Problem(f"{path}.interval", expected, "such as 15s")
    if not metrics.collect and not metrics.keep:
        yield Problem(path, "nothing of it is collected or kept", "such as keep: ['*']")
    for index, text in enumerate(metrics.keep):
        if text != EVERYTHING:
            yield from _check_series(f"{path}.keep[{index}]", text)
    yield from check_unique(f"{path}.collect", "metric", (metric.name for metric in metrics.collect))
    for index, metric in enumerate(metrics.collect):
        yield from _check_metric(f"{path}.collect[{index}]", metric)


def _check_metric(path: str, metric: Collected) -> Iterator[Problem]:
    kinds = [kind for kind in (metric.rate, metric.mean, metric.histogram) if kind is not None]
    if len(kinds) != 1:
        yield Problem(path, f"{len(kinds)} ways to measure", "write exactly one of rate, mean, histogram")
    if metric.rate is not None:
        yield from _check_series(f"{path}.rate.bad", metric.rate.bad)
        yield from _check_series(f"{path}.rate.total", metric.rate.total)
        if metric.rate.bad == metric.rate.total:
            hint = """such as bad: 'http_requests_total{status=~"5.."}'"""
            yield Problem(f"{path}.rate.bad", "is the same as total, so all of them are bad", hint)
    if metric.mean is not None:
        yield from _check_mean(f"{path}.mean", metric.mean)
    if metric.histogram is not None:
        yield from _check_series(f"{path}.histogram", metric.histogram)
        name = metric.histogram.partition("{")[0].strip()
        if name.endswith("_bucket"):
            yield Problem(
                f"{path}.histogram", f"{name} is a part of it", f"write {name.removesuffix('_bucket')}"
            )


def _check_mean(path: str, mean: MeanMetric) -> Iterator[Problem]:
    sources = [source for source in (mean.gauge, mean.summary) if source is not None]
    if len(sources) != 1:
        yield Problem(path, f"{len(sources)} sources of samples", "write exactly one of gauge, summary")
    if mean.gauge is not None:
        yield from _check_series(f"{path}.gauge", mean.gauge)
    if mean.summary is not None:
        yield from _check_series(f"{path}.summary", mean.summary)
    if not mean.low < mean.high:
        yield Problem(f"{path}.high", f"expected more than low, {mean.low:g}, got {mean.high:g}")


def _check_series(path: str, text: str) -> Iterator[Problem]:
    try:
        parse_series(text)
    except ValueError as error:
        yield Problem(
            path, str(error), """such as http_requests_total or 'http_requests_total{status="500"}'"""
        )
