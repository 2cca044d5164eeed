"""What `skerry agent hold` and `release-hold` do: change the files, and wait until a running agent goes by them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.agent.commands import believed_now, read_status
from skerry.agent.holding import read_holds, release_hold, set_hold
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Rejected
from skerry.spec.hold import Hold

WAIT_S = 10.0
LOOK_EVERY_S = 0.1

Agent = Literal["knows", "does not run", "has not said so"]


class HoldChange(msgspec.Struct, frozen=True):
    """What was changed, and how far the agent is.

    `under_way` are trials that had begun, which are finished. `left` are the other holds that concern the same.
    """

    application: str
    hold: Hold | None
    agent: Agent
    under_way: tuple[str, ...] = ()
    left: tuple[Hold, ...] = ()


def hold_updates(
    data: Path, application: str, *, why: str, by: str, until: datetime | float | None = None
) -> HoldChange:
    """Hold an application of this host, or all of them; when this returns with `knows`, no other trial begins.

    `until` is an instant, or seconds from now by the time the host believes.

    Raises:
        Missing: no host has joined a site in this directory (`agent.not_joined`).
        Rejected: what is said cannot be kept, or would have ended already.
        Unavailable: it cannot be written.
    """
    now = believed_now(read_status(data))
    try:
        ends = now + timedelta(seconds=until) if isinstance(until, (int, float)) else until
        ends = ends and ends.astimezone(UTC)
    except OverflowError as error:
        raise Rejected("hold.bad_time", "that is longer than time can be told") from error
    hold = Hold(since=now.replace(microsecond=0), by=by, why=why, application=application, until=ends)
    set_hold(data, hold)
    return _follow(data, HoldChange(application, hold, "has not said so"))


def release_updates(data: Path, application: str) -> HoldChange:
    """Release the hold of an application, or the one of the whole host.

    Raises:
        Missing: no host has joined here (`agent.not_joined`), or there is no such hold (`hold.missing`).
        Unavailable: it cannot be removed.
    """
    now = believed_now(read_status(data))
    release_hold(data, application)
    left = tuple(h for h in read_holds(data, now) if not (h.application and application))
    return _follow(data, HoldChange(application, None, "has not said so", left=left))


def _follow(data: Path, change: HoldChange) -> HoldChange:
    """Wait a while for the agent to go by what was changed."""
    deadline = time.monotonic() + WAIT_S
    while True:
        status = read_status(data)
        if not status["agent_running"]:
            return msgspec.structs.replace(change, agent="does not run")
        observed: Mapping[str, Any] = status.get("observed") or {}
        try:
            known = msgspec.convert(observed.get("holds") or (), type=tuple[Hold, ...])
        except UNREADABLE:
            known = ()
        mine = next((hold for hold in known if hold.application == change.application), None)
        if mine == change.hold:
            return msgspec.structs.replace(change, agent="knows", under_way=_under_way(change, observed))
        if time.monotonic() > deadline:
            return change
        time.sleep(LOOK_EVERY_S)


def _under_way(change: HoldChange, observed: Mapping[str, Any]) -> tuple[str, ...]:
    views: Mapping[str, Mapping[str, Any]] = observed.get("applications") or {}
    return tuple(
        str(view.get("candidate"))
        for name, view in sorted(views.items())
        if change.application in ("", name) and view.get("phase") in ("starting", "soaking")
    )
