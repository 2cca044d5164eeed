"""Which version of a secret a host uses: the highest whose time has come, and never none where there was one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec


class HeldVersion(msgspec.Struct, frozen=True):
    """A version that a host holds and that is not revoked; of one that it makes itself, which `round` of it."""

    id: str
    version: int
    not_before: datetime | None = None
    round: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        """What is compared: the higher one is the later one."""
        return self.version, self.round


class InUse(msgspec.Struct, frozen=True):
    """The version that is used, and since when by the host's own clock; `previous` is the one before it."""

    id: str
    since: datetime
    previous: str = ""


def choose_version(
    held: Collection[HeldVersion], before: InUse | None, *, now: datetime, clock: datetime
) -> InUse | None:
    """Return which version is used from now on; None while there is none whose time has come.

    `now` is the time that the host believes, and `clock` its own clock, which `since` is read from. Neither a clock
    that goes back nor a version that is listed no more takes a value away: only a higher version does, or that the
    one in use is held no more, because it was revoked.
    """
    by_id = {one.id: one for one in held}
    started = [one for one in held if one.not_before is None or one.not_before <= now]
    current = by_id.get(before.id) if before is not None else None
    best = max(started, key=lambda one: one.rank, default=None)
    if current is not None and (best is None or best.rank <= current.rank):
        return before
    if best is None:
        return None
    # What was revoked is not left beside the new one.
    return InUse(best.id, clock, current.id if current is not None else "")
