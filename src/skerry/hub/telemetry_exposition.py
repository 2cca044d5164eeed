"""What the hub and the fleet measure, in Prometheus' text format 0.0.4, for a Prometheus that scrapes the hub.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/.

Rules: figures are of the last quarter of an hour, in groups by site, app, component and release, each with the instant
up to which its site told; a site that told nothing in that time has none, and `skerry_sites` says how many are told of.
Counters of the fleet come as rates, since a sum over what the hub keeps would fall when it forgets. Lines are bounded.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping

from skerry.hub.telemetry_query import TelemetryQueries
from skerry.kit.errors import Rejected
from skerry.spec.api_telemetry import FigureView, MetricView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BY = ("site", "app", "component", "release")
SINCE_S = 900.0
MAX_LINES = 100_000
QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}
_started_at = time.time()


def write_exposition(queries: TelemetryQueries, *, kept_bytes: int) -> str:
    """Return the text: the hub's own figures first."""
    lines: list[str] = []
    for line in _lines(queries, kept_bytes):
        if len(lines) >= MAX_LINES:
            lines.append(f"# cut off after {MAX_LINES} lines")
            break
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _lines(queries: TelemetryQueries, kept_bytes: int) -> Iterator[str]:
    yield from _own(kept_bytes)
    yield from _sites(queries)
    for metric in queries.names():
        yield from _fleet(queries, metric)


def _own(kept_bytes: int) -> Iterator[str]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield from _one("process_cpu_seconds_total", "counter", used.ru_utime + used.ru_stime)
    yield from _one("process_resident_memory_bytes", "gauge", _resident_bytes())
    yield from _one("process_start_time_seconds", "gauge", _started_at)
    yield from _one("skerry_hub_telemetry_bytes", "gauge", kept_bytes)


def _sites(queries: TelemetryQueries) -> Iterator[str]:
    coverage = queries.top_sites(SINCE_S).coverage
    yield "# TYPE skerry_sites gauge"
    for state, count in (("told", coverage.sites), ("all", coverage.of), ("older_than_1h", coverage.stale)):
        yield _sample("skerry_sites", {"telemetry": state}, count)


def _fleet(queries: TelemetryQueries, metric: MetricView) -> Iterator[str]:
    match metric.kind:
        case "counter":
            name = f"{metric.name.removesuffix('_total')}_per_second"
            yield from _figures(queries, metric, name, {"rate": ""})
        case "distribution":
            yield from _figures(queries, metric, metric.name, QUANTILES)
        case _:
            yield from _figures(queries, metric, metric.name, {"mean": ""})


def _figures(
    queries: TelemetryQueries, metric: MetricView, name: str, stats: Mapping[str, str]
) -> Iterator[str]:
    yield f"# TYPE {name} {'summary' if metric.kind == 'distribution' else 'gauge'}"
    for stat, share in stats.items():
        try:
            answer = queries.query(f"{metric.name}_{stat}", BY, SINCE_S)
        except Rejected:  # of several kinds at different sites: there is no one figure of it
            return
        for figure in answer.figures:
            if figure.value is not None:
                yield _sample(name, _labels(figure, share), figure.value, figure)


def _labels(figure: FigureView, share: str) -> dict[str, str]:
    labels = {label: value for label, value in figure.group.items() if value}
    return {**labels, "quantile": share} if share else labels


def _one(name: str, kind: str, value: float) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    yield _sample(name, {}, value)


def _sample(name: str, labels: Mapping[str, str], value: float, figure: FigureView | None = None) -> str:
    inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    at = f" {round(figure.as_of.timestamp() * 1000)}" if figure is not None else ""
    return f"{name}{{{inside}}} {value!r}{at}" if inside else f"{name} {value!r}{at}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 (one small read)
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
