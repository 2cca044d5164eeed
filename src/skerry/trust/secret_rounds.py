"""When a host makes a value of a secret that it makes for itself: the first at once, and each next one a period ahead.

The value that comes next is always there before its time, so that its public half can be told before it is used, and
so that nothing has to be made at the moment of change.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec

CLOCK_WAS_WRONG = timedelta(days=1)
"""A next value that begins by so much later than a period from now was made while the clock was wrong."""


class HeldRound(msgspec.Struct, frozen=True):
    """A value that a host has made for one order; it counts them from 1."""

    id: str
    round: int
    not_before: datetime | None = None


class RoundPlan(msgspec.Struct, frozen=True):
    """What is to be made: a value of `round` that is used from `not_before` on; in the place of `instead`, if any."""

    round: int
    not_before: datetime | None = None
    instead: str = ""


def plan_round(
    held: Collection[HeldRound], *, rotate_every: timedelta | None, not_before: datetime | None, now: datetime
) -> RoundPlan | None:
    """Return which value is to be made now for an order, None when none is.

    `not_before` is when the order's first value begins; `now` is the time that the host believes. However long a
    host was off, one change is made up for, and the period counts from then on.
    """
    newest = max(held, key=lambda one: one.round, default=None)
    if newest is None:
        return RoundPlan(1, not_before)
    if rotate_every is None:
        return None
    if newest.not_before is None or newest.not_before <= now:
        return RoundPlan(newest.round + 1, now + rotate_every)
    if newest.round > 1 and newest.not_before > now + rotate_every + CLOCK_WAS_WRONG:
        return RoundPlan(newest.round, now + rotate_every, newest.id)
    return None
