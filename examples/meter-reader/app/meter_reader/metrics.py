"""Counts what the application does and writes it in the Prometheus text format.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text version 0.0.4). Only what is needed
is here: counters with one label and histograms with fixed bounds. The server has one thread, so nothing is
locked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SCORE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Histogram:
    """How often a value fell under each of some rising bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a value equal to a bound belongs under it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def render(self, name: str, about: str) -> list[str]:
        """The lines of this histogram; bucket counts include all smaller buckets, as the format wants it."""
        lines = [f"# HELP {name} {about}", f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'{name}_bucket{{le="{label}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.9g}", f"{name}_count {total}"]


class Metrics:
    """Everything the application counts since it started."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter({"bad_request": 0, "not_ready": 0, "internal": 0})
        self.latency_s = Histogram(LATENCY_BOUNDS_S)
        self.score = Histogram(SCORE_BOUNDS)

    def render(self, version: str, variant: str) -> str:
        """All of it as text; version and variant are empty strings where no model is loaded."""
        info = f'{{version="{_escape(version)}",variant="{_escape(variant)}"}}'
        lines = [
            "# HELP meter_reader_model_info The model in use.",
            "# TYPE meter_reader_model_info gauge",
            f"meter_reader_model_info{info} {1 if version else 0}",
            *_counter_lines(
                "meter_reader_requests_total", "Readings asked for, by HTTP status.", "code", self.requests
            ),
            *_counter_lines(
                "meter_reader_errors_total", "Readings that failed, by cause.", "kind", self.errors
            ),
            *self.latency_s.render("meter_reader_latency_seconds", "Time from the whole body to the answer."),
            *self.score.render("meter_reader_score", "The model's score for each digit it read."),
        ]
        return "\n".join(lines) + "\n"


def _counter_lines(name: str, about: str, label: str, values: Counter[str]) -> list[str]:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} counter"]
    return lines + [f'{name}{{{label}="{_escape(key)}"}} {values[key]}' for key in sorted(values)]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
