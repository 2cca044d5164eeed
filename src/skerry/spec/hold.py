"""A hold: what a person at a site has said so that a host takes no other release for now."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part

MAX_WHY = 1024
MAX_BY = 128


class Hold(Part, frozen=True, kw_only=True):
    """Who keeps a host from taking another release, why and since when; `application` is empty where it is all of them.

    It ends at `until`, or when somebody at the host releases it. Nothing that comes from a hub ends it.
    """

    since: Annotated[datetime, Meta(tz=True)]
    by: Annotated[str, Meta(max_length=MAX_BY)]
    why: Annotated[str, Meta(max_length=MAX_WHY)]
    application: Annotated[str, Meta(max_length=63)] = ""
    until: Annotated[datetime, Meta(tz=True)] | None = None


def hold_text(hold: Hold) -> str:
    """Return a hold as a sentence: `held by ann since 2026-05-04 08:00Z: stocktaking, until 2026-05-05 06:00Z`."""
    until = f", until {instant_text(hold.until)}" if hold.until else ""
    return f"held by {hold.by} since {instant_text(hold.since)}: {hold.why}{until}"


def instant_text(at: datetime) -> str:
    """Return an instant to the minute, in the zone it has."""
    # Not brought to UTC: one that a host made up may be at the end of time.
    return f"{at:%Y-%m-%d %H:%M}{f'{at:%z}' if at.utcoffset() else 'Z'}"
