"""Which secret or certificate will run out before its host is heard of again.

A host is expected back after the longest silence it is known for, or after its site's offline tolerance if that is
longer. What it needs until then it has to hold already: nobody can bring it anything in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.kit.quantities import format_duration


class Expected(msgspec.Struct, frozen=True):
    """By when a host is expected to be heard of, and why."""

    by: datetime
    why: str


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """From when and until when a version may be used; None is at once, and for ever."""

    version: int
    begins_at: datetime | None = None
    ends_at: datetime | None = None


class RunsOut(msgspec.Struct, frozen=True):
    """When nothing that is held may be used any more, and why nothing follows."""

    at: datetime
    why: str


def expect_contact(
    last_seen_at: datetime, silences: Sequence[timedelta], *, tolerance: timedelta, now: datetime
) -> Expected:
    """Return by when a host is expected to be heard of, after its earlier `silences`.

    One that is heard of now may fall silent now, and one that is overdue is given its usual silence once more.
    """
    longest = max(silences, default=timedelta())
    usual = max(longest, tolerance)
    known = "its longest silence" if longest >= tolerance else "its site's offline tolerance"
    told = f"{known} is {format_duration(usual.total_seconds())}"
    away = now - last_seen_at
    if away <= tolerance:
        return Expected(now + usual, f"it is heard of; {told}")
    silent = f"silent for {format_duration(away.total_seconds())}"
    if away <= usual:
        return Expected(last_seen_at + usual, f"{silent}; {told}")
    return Expected(now + usual, f"{silent}, longer than expected; {told}")


def find_end(
    used: Life, held: Collection[Life], prepared: Collection[Life], *, until: datetime
) -> RunsOut | None:
    """Return when a host has nothing left to use before `until`, None when it has something.

    `held` are the later versions on the host, `prepared` those at the hub, on their way or not.
    """
    end = used.ends_at
    while end is not None and end <= until:
        following = [life for life in held if life.version > used.version and _covers(life, end)]
        if not following:
            return RunsOut(end, _why(used, prepared, end))
        used = max(following, key=lambda life: life.version)
        end = used.ends_at
    return None


def _covers(life: Life, moment: datetime) -> bool:
    return (life.begins_at is None or life.begins_at <= moment) and (
        life.ends_at is None or life.ends_at > moment
    )


def _why(used: Life, prepared: Collection[Life], end: datetime) -> str:
    later = sorted(
        (life for life in prepared if life.version > used.version),
        key=lambda life: life.version,
        reverse=True,
    )
    for life in later:
        if _covers(life, end):
            return f"version {life.version} has not reached the host, as far as it has told"
    for life in later:
        if life.begins_at is not None and life.begins_at > end:
            return f"version {life.version} begins only at {life.begins_at:%Y-%m-%d %H:%M} UTC"
    return "no later version is prepared"
