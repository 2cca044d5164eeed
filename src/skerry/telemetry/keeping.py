"""Which windows a host merges or gives up, so that months without a hub fit into a small store.

Rules: windows merge into hours and then days, which begin on the hour and the day for every release, so that they
still stand side by side. They merge only with their like: what the hub has never been told of with the same, what it
has with the same, and what is in doubt with nothing; so no sample is told twice. Beyond the bound the oldest go, those
that the hub has before others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
HOURS_AFTER_S = 6 * HOUR_S
DAYS_AFTER_S = 7 * DAY_S
MAX_AHEAD_S = DAY_S
TOLD_FOR_S = 30 * DAY_S
MAX_KEPT = 3000

State = Literal["new", "doubt", "told"]


class Series(NamedTuple):
    """What a window is of."""

    application: str
    release: str
    component: str
    metric: str


class Kept(NamedTuple):
    """A window as it is kept, without its value. Instants are whole seconds of the epoch."""

    series: Series
    begin: int
    end: int
    state: State


class Keeping(NamedTuple):
    """What to do: windows to merge, by the window they become, and windows to give up."""

    merge: Mapping[Kept, Sequence[Kept]]
    drop: Sequence[Kept]


def window_at(second: float) -> int:
    """Return the beginning of the window that an instant belongs to."""
    return int(second // MINUTE_S) * MINUTE_S


def plan_keeping(windows: Iterable[Kept], *, now: int, most: int = MAX_KEPT) -> Keeping:
    """Return what to merge and what to give up at `now`.

    A window that begins more than a day ahead is of a clock that was wrong; it is given up as well.
    """
    kept = list(windows)
    drop = [
        w for w in kept if w.begin > now + MAX_AHEAD_S or (w.state == "told" and w.end < now - TOLD_FOR_S)
    ]
    gone = set(drop)
    merge = _merges([w for w in kept if w not in gone], now)
    merged = {part for parts in merge.values() for part in parts}
    left = [*merge, *(w for w in kept if w not in gone and w not in merged)]
    surplus = len(left) - most
    if surplus > 0:
        oldest = sorted(left, key=lambda w: (w.state != "told", w.begin, w))[:surplus]
        for window in oldest:
            drop.extend(merge.pop(window, (window,)))
    return Keeping(merge, drop)


def _merges(windows: Sequence[Kept], now: int) -> dict[Kept, Sequence[Kept]]:
    found: dict[Kept, Sequence[Kept]] = {}
    # Days first: what is that old need not become hours before.
    left = windows
    for span, age in ((DAY_S, DAYS_AFTER_S), (HOUR_S, HOURS_AFTER_S)):
        groups: dict[tuple[Series, int], list[Kept]] = {}
        for window in left:
            begin = window.begin // span * span
            if window.end <= begin + span <= now - age and window.end - window.begin < span:
                groups.setdefault((window.series, begin), []).append(window)
        for (series, begin), parts in groups.items():
            states = {part.state for part in parts}
            if len(states) == 1 and "doubt" not in states:
                found[Kept(series, begin, begin + span, parts[0].state)] = parts
        merged = {part for parts in found.values() for part in parts}
        left = [window for window in left if window not in merged]
    return found
