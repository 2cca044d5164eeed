"""How answers about metrics say what they are made of: figures, the time asked about, the share of sites, and ages."""

from __future__ import annotations

from datetime import datetime

from skerry.cli.text import age, local_time, plural
from skerry.spec.api_telemetry import CoverageView


def in_words(value: float | None) -> str:
    """Return a figure to four significant digits, without an exponent where it can be read."""
    if value is None:
        return ""
    if value == 0 or 1e-3 <= abs(value) < 1e15:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return f"{value:.3e}"


def range_line(since: datetime, until: datetime) -> str:
    """Return the time that was asked about."""
    return f"from {local_time(since)} to {local_time(until)}"


def coverage_lines(coverage: CoverageView, until: datetime) -> list[str]:
    """Return `coverage: 812 of 940 sites, 128 older than 1 h`, and how old the newest and the oldest are."""
    head = f"coverage: {coverage.sites} of {plural(coverage.of, 'site')}, {coverage.stale} older than 1 h"
    if coverage.as_of is None:
        return [head]
    return [head, f"newest: {age(coverage.as_of, until)}, oldest: {age(coverage.oldest, until)}"]
