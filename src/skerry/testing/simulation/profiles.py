"""When a site's link is up: profiles by name, each a row of intervals in seconds since the simulation began."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, tzinfo
from random import Random
from typing import Literal

LinkProfile = Literal["always-on", "business-hours", "satellite", "dead-for-a-week", "dead"]
"""`business-hours`: Monday to Friday 8 to 18 at the site; `satellite`: 10 minutes a day; `dead-for-a-week`: silent for
seven days that begin up to three days before the simulation or up to two after; `dead`: never heard."""

Interval = tuple[float, float]

DAY_S = 86400.0
WEEK_S = 7 * DAY_S
SATELLITE_S = 600.0
OPENS, CLOSES = time(8), time(18)
JITTER_S = 900.0


def link_intervals(
    profile: LinkProfile, rng: Random, starts_at: datetime, zone: tzinfo
) -> Iterator[Interval]:
    """Yield when the link is up, in order, apart, for ever; an interval may have begun before 0."""
    match profile:
        case "always-on":
            yield 0.0, math.inf
        case "dead":
            return
        case "dead-for-a-week":
            dies = rng.uniform(-3 * DAY_S, 2 * DAY_S)
            if dies > 0:
                yield 0.0, dies
            yield dies + WEEK_S, math.inf
        case "satellite":
            pass_at = rng.uniform(0, DAY_S - SATELLITE_S)
            day = 0
            while True:
                begin = day * DAY_S + pass_at + rng.uniform(0, 60.0)
                yield begin, begin + SATELLITE_S
                day += 1
        case "business-hours":
            yield from _business_hours(rng, starts_at, zone)


def _business_hours(rng: Random, starts_at: datetime, zone: tzinfo) -> Iterator[Interval]:
    day = starts_at.astimezone(zone).date()
    while True:
        if day.weekday() < 5:
            opens, closes = (
                (datetime.combine(day, at, zone).astimezone(UTC) - starts_at).total_seconds()
                + rng.uniform(0, JITTER_S)
                for at in (OPENS, CLOSES)
            )
            if closes > 0:
                yield opens, closes
        day += timedelta(days=1)
