"""When windows that cron times open are open, in a site's own time; pure.

A window is open from each time of its cron for its duration. The times are of the site's clock on the wall; the
duration is real time. A time that a clock change skips is right after it, one that comes twice counts once, the
first time. All comparisons are made in UTC: on the wall, an hour may come twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from skerry.spec.desired import OpenWindow


def open_until(window: OpenWindow, now: datetime, zone: tzinfo) -> datetime | None:
    """Return when the window that is open now ends, or None when it is closed; it may go on by a later opening."""
    opened = _first_after(window, now - timedelta(seconds=window.duration_s), zone)
    return opened + timedelta(seconds=window.duration_s) if opened is not None and opened <= now else None


def opens_after(window: OpenWindow, now: datetime, zone: tzinfo) -> datetime | None:
    """Return when the window next opens, None if never."""
    return _first_after(window, now, zone)


def local_text(at: datetime, now: datetime, zone: tzinfo, name: str) -> str:
    """Return an instant as people at the site would say it: `22:00 (Europe/Zurich)`, with the day if not today."""
    local, today = at.astimezone(zone), now.astimezone(zone).date()
    return f"{local:%H:%M} ({name})" if local.date() == today else f"{local:%a %Y-%m-%d %H:%M} ({name})"


def decide_switch(
    windows: tuple[OpenWindow, ...], now: datetime, zone: tzinfo, name: str
) -> tuple[str, datetime | None]:
    """Return what keeps a host from switching to a release now, empty when nothing does, and when to ask again."""
    if not windows or any(open_until(window, now, zone) is not None for window in windows):
        return "", None
    coming = [at for window in windows if (at := opens_after(window, now, zone)) is not None]
    if not coming:
        return "ready to switch; the site has no window for it", None
    return f"ready; waiting for the site's window at {local_text(min(coming), now, zone, name)}", min(coming)


def _first_after(window: OpenWindow, start: datetime, zone: tzinfo) -> datetime | None:
    # Most sites have no windows, and the agent's memory is small.
    from cronsim import CronSim, CronSimError

    try:
        for local in CronSim(window.cron, start.astimezone(zone)):
            # In the hour that comes twice, the next time on the wall may be one that has been.
            if (at := local.astimezone(UTC)) > start:
                return at
    except CronSimError:
        # Checked when the site was applied; a window that cannot be read never opens.
        return None
    return None
