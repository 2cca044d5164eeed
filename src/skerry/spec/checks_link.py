"""Checks of a Site's link budget and windows: what could never hold, or would hold back for ever."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from skerry.kit.quantities import format_size, parse_duration, parse_rate, parse_size
from skerry.spec.problems import Problem
from skerry.spec.site import LinkWindow, SiteLink, SiteSpec, SwitchWindow

MIN_RATE = 128
MIN_BUDGET = 1 << 20
MAX_BYTES = 1 << 50
MIN_WINDOW_S, MAX_WINDOW_S = 60.0, 7 * 86400.0


def check_site_link(spec: SiteSpec) -> Iterator[Problem]:
    """Yield what is wrong with a site's link budget and windows."""
    link = spec.link
    yield from _check_rate("spec.link.rate", link.rate)
    yield from _check_rate("spec.link.metered_rate", link.metered_rate)
    for index, window in enumerate(link.windows):
        yield from _check_window(f"spec.link.windows[{index}]", window)
        yield from _check_rate(f"spec.link.windows[{index}].rate", window.rate)
    for index, switch in enumerate(spec.switch_windows):
        yield from _check_window(f"spec.switch_windows[{index}]", switch)
    yield from _check_budgets(link)
    if not link.metered:
        for name in ("metered_rate", "metered_per_day"):
            if getattr(link, name) != getattr(SiteLink(), name):
                yield Problem(
                    f"spec.link.{name}", "means nothing without metered: true", "write metered: true"
                )


def _check_budgets(link: SiteLink) -> Iterator[Problem]:
    for name in ("per_day", "per_month", "metered_per_day"):
        text = getattr(link, name)
        if text is not None and not MIN_BUDGET <= parse_size(text) <= MAX_BYTES:
            limits = f"{format_size(MIN_BUDGET)} to {format_size(MAX_BYTES)}"
            yield Problem(
                f"spec.link.{name}", f"expected {limits}, got {text}", "to let nothing flow, write rate: 0"
            )
    if link.carry_over != SiteLink().carry_over and link.per_day is None and link.per_month is None:
        hint = "write per_day or per_month, or leave it out"
        yield Problem("spec.link.carry_over", "means nothing without a budget", hint)
    if not link.carry_over.endswith("%") and parse_size(link.carry_over) > MAX_BYTES:
        yield Problem("spec.link.carry_over", f"more than {format_size(MAX_BYTES)}")


def _check_rate(path: str, rate: str | int) -> Iterator[Problem]:
    value = parse_rate(str(rate))
    if value is not None and value != 0 and not MIN_RATE <= value <= MAX_BYTES:
        hint = "to let nothing flow, write 0; to set no limit, unlimited"
        yield Problem(path, f"expected {MIN_RATE} B/s to {format_size(MAX_BYTES)}/s, got {rate}", hint)


def _check_window(path: str, window: LinkWindow | SwitchWindow) -> Iterator[Problem]:
    # Most sites have no windows, and those who read them should not pay for the rest.
    from cronsim import CronSim, CronSimError

    if not MIN_WINDOW_S <= parse_duration(window.duration) <= MAX_WINDOW_S:
        yield Problem(f"{path}.duration", f"expected 1m to 7d, got {window.duration}")
    if len(window.cron.split()) != 5:
        hint = "minute, hour, day of month, month, day of week, such as 0 22 * * MON-FRI"
        yield Problem(f"{path}.cron", f"expected five fields, got {len(window.cron.split())}", hint)
        return
    try:
        never = next(CronSim(window.cron, datetime(2026, 1, 1, tzinfo=UTC)), None) is None
    except CronSimError as error:
        hint = "minute, hour, day of month, month, day of week, such as 0 22 * * MON-FRI"
        yield Problem(f"{path}.cron", f"not a time of cron: {error}", hint)
    else:
        if never:
            yield Problem(f"{path}.cron", f"there is no such time: {window.cron}", "it would never open")
