"""What may flow over a site's link now: rates by time of day, budgets by day and month, and the token bucket; pure.

- A host keeps to its equal share of the site's budget (`own_share`); nobody has to be asked, and together the hosts
  never take more than the site has.
- Usage is kept per period: the day and month of the site's own calendar. A new one begins when the clock enters a
  later period than any before. When the clock has gone back, what was used stays used until the clock is past
  where it was, or has run on for a whole period: no budget twice, and no link that is closed for ever.
- What a clock that jumps forward skips was not used; it is saved like any other, up to the carry-over.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, tzinfo

import msgspec

from skerry.delivery.windows import local_text, open_until, opens_after
from skerry.kit.quantities import format_size, parse_duration, parse_rate, parse_size
from skerry.spec.desired import DiskPolicy, LinkPolicy, OpenWindow, SitePolicy
from skerry.spec.site import SiteDisk, SiteLink, SiteSpec

BURST_S = 0.5
LOOK_AGAIN_S = 86400.0
_DAY_S, _MONTH_S = 86400.0, 31 * 86400.0
_MOST_CHANGES = 200


class Period(msgspec.Struct, frozen=True):
    """What was used of one day or month. `behind_s`: how far the clock has run on since it went back behind it."""

    number: int = 0
    used: int = 0
    saved: int = 0
    behind_s: float = 0.0


class BudgetState(msgspec.Struct, frozen=True):
    """What is remembered, durably: usage of the day, of the month, and of the day while metered.

    `seen_at` is the time of the last look, in seconds since 1970.
    """

    day: Period = Period()
    month: Period = Period()
    metered: Period = Period()
    seen_at: float = 0.0


class Flow(msgspec.Struct, frozen=True):
    """What may flow: `rate` bytes per second (0 nothing, None any) and `allowance` bytes (None any) until `until`.

    `why` says what holds everything back; then `until` is when it goes on, as far as is known.
    """

    rate: int | None
    allowance: int | None
    until: datetime
    why: str = ""

    @property
    def held(self) -> bool:
        """Tell whether nothing may flow."""
        return self.rate == 0 or self.allowance == 0


class Bucket:
    """A token bucket that may go into debt: who takes is told how long to wait before taking more."""

    def __init__(self, rate: int | None, now: float) -> None:
        self._rate = rate
        self._at = now
        self._level = self._burst

    def tune(self, rate: int | None, now: float) -> None:
        """Change the rate; debts stay, in bytes."""
        if rate != self._rate:
            self._fill(now)
            self._rate = rate
            self._level = min(self._level, self._burst)

    def take(self, size: int, now: float) -> float:
        """Take `size` bytes that have come and return for how many seconds nothing more may come."""
        if not self._rate:
            return 0.0
        self._fill(now)
        self._level -= size
        return max(0.0, -self._level / self._rate)

    @property
    def _burst(self) -> float:
        return (self._rate or 0) * BURST_S

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * (self._rate or 0))
        self._at = max(self._at, now)


def site_policy(spec: SiteSpec, *, hosts: int) -> SitePolicy:
    """Return the policy of a site with that many hosts, as its DesiredState carries it."""
    limited = spec.link != SiteLink()
    return SitePolicy(
        host_network=spec.host_network,
        link=link_policy(spec.link, hosts=hosts) if limited else None,
        disk=disk_policy(spec.disk),
        switch_windows=tuple(
            OpenWindow(cron=window.cron, duration_s=parse_duration(window.duration))
            for window in spec.switch_windows
        ),
        # Elsewhere nothing depends on it, and nobody's document is to change for it.
        broker=spec.broker,
        time_zone=spec.time_zone if limited or spec.switch_windows else "UTC",
    )


def disk_policy(disk: SiteDisk) -> DiskPolicy:
    """Return what downloads may take of each host's disk, in bytes."""
    return DiskPolicy(keep_free=_bytes(disk.keep_free), blobs=_bytes(disk.blobs))


def link_policy(link: SiteLink, *, hosts: int) -> LinkPolicy:
    """Return a site's link budget in numbers."""
    per_day, per_month = _bytes(link.per_day), _bytes(link.per_month)
    return LinkPolicy(
        hosts=max(1, hosts),
        rate=parse_rate(str(link.rate)),
        windows=tuple(
            OpenWindow(
                cron=window.cron,
                duration_s=parse_duration(window.duration),
                rate=parse_rate(str(window.rate)),
            )
            for window in link.windows
        ),
        per_day=per_day,
        day_carry=_carry(link.carry_over, per_day),
        per_month=per_month,
        month_carry=_carry(link.carry_over, per_month),
        metered_rate=parse_rate(str(link.metered_rate)),
        metered_per_day=_bytes(link.metered_per_day),
    )


def own_share(policy: LinkPolicy) -> LinkPolicy:
    """Return what one host may take; `hosts` stays, for what is said of it."""

    def share(value: int | None) -> int | None:
        return value if not value else max(1, value // policy.hosts)

    return msgspec.structs.replace(
        policy,
        rate=share(policy.rate),
        windows=tuple(msgspec.structs.replace(w, rate=share(w.rate)) for w in policy.windows),
        per_day=share(policy.per_day),
        day_carry=policy.day_carry // policy.hosts,
        per_month=share(policy.per_month),
        month_carry=policy.month_carry // policy.hosts,
        metered_rate=share(policy.metered_rate),
        metered_per_day=share(policy.metered_per_day),
    )


def turn_periods(policy: LinkPolicy, state: BudgetState, now: datetime, zone: tzinfo) -> BudgetState:
    """Return the state with the periods of now; `policy` is the host's own share."""
    day, month = _numbers(now, zone)
    seen = now.timestamp()
    forward = max(0.0, seen - state.seen_at) if state.seen_at else 0.0
    return BudgetState(
        day=_turn(state.day, day, policy.per_day or 0, policy.day_carry, (forward, _DAY_S)),
        month=_turn(state.month, month, policy.per_month or 0, policy.month_carry, (forward, _MONTH_S)),
        metered=_turn(state.metered, day, policy.metered_per_day or 0, 0, (forward, _DAY_S)),
        seen_at=seen,
    )


def count_bytes(state: BudgetState, size: int, *, metered: bool) -> BudgetState:
    """Return the state after `size` bytes came or went."""

    def more(period: Period) -> Period:
        return msgspec.structs.replace(period, used=period.used + size)

    return msgspec.structs.replace(
        state,
        day=more(state.day),
        month=more(state.month),
        metered=more(state.metered) if metered else state.metered,
    )


def decide_flow(
    policy: LinkPolicy, state: BudgetState, now: datetime, zone: tzinfo, *, metered: bool = False
) -> Flow:
    """Return what may flow now, and until when that holds; `policy` is the host's own share."""
    state = turn_periods(policy, state, now, zone)
    name = str(zone)
    rate, until, holds = _decide_rate(policy, now, zone, metered=metered)
    allowance: int | None = None
    for budget, period, words, resumes in _budgets(policy, state, now, zone, metered=metered):
        left = max(0, budget + period.saved - period.used)
        allowance = left if allowance is None else min(allowance, left)
        until = min(until, resumes)
        if not left:
            whose = "this host's " if policy.hosts > 1 else ""
            used = f"used {format_size(period.used)} of {whose}{format_size(budget + period.saved)} {words}"
            holds.append((resumes, f"{used}, goes on at {local_text(resumes, now, zone, name)}"))
    if holds:
        # Each must have ended; the last one to do so is what people want to know.
        goes_on, why = max(holds)
        return Flow(rate, allowance, goes_on, why)
    return Flow(rate, allowance, until)


def forecast_arrival(
    policy: LinkPolicy, state: BudgetState, now: datetime, zone: tzinfo, size: int
) -> datetime | None:
    """Return when `size` bytes will have come if nothing else flows; None if not within some hundred changes.

    `policy` is the host's own share. Where no rate is stated the link's own speed is unknown, and takes no time.
    """
    for _ in range(_MOST_CHANGES):
        flow = decide_flow(policy, state, now, zone)
        if flow.held:
            now = flow.until
            continue
        part = size if flow.allowance is None else min(size, flow.allowance)
        if flow.rate is not None:
            part = min(part, max(1, int((flow.until - now).total_seconds() * flow.rate)))
        state = count_bytes(turn_periods(policy, state, now, zone), part, metered=False)
        size -= part
        now += timedelta(seconds=part / flow.rate) if flow.rate else timedelta()
        if size <= 0:
            return now
    return None


def _decide_rate(
    policy: LinkPolicy, now: datetime, zone: tzinfo, *, metered: bool
) -> tuple[int | None, datetime, list[tuple[datetime, str]]]:
    rate, until = _rate_at(policy, now, zone)
    holds: list[tuple[datetime, str]] = []
    if rate == 0:
        goes_on = _next_open(policy, until, zone)
        later = now + timedelta(seconds=LOOK_AGAIN_S)
        if goes_on is None:
            holds.append((later, "the site's link is closed to downloads, and no window opens it"))
        else:
            at = local_text(goes_on, now, zone, str(zone))
            holds.append((goes_on, f"waiting for the link's window at {at}"))
    if metered and policy.metered_rate is not None:
        rate = policy.metered_rate if rate is None else min(rate, policy.metered_rate)
        if policy.metered_rate == 0:
            holds.append((now + timedelta(seconds=LOOK_AGAIN_S), "waiting for a link that is not metered"))
    return rate, until, holds


def _rate_at(policy: LinkPolicy, now: datetime, zone: tzinfo) -> tuple[int | None, datetime]:
    """Return the rate by time of day, and when it may change."""
    until = now + timedelta(seconds=LOOK_AGAIN_S)
    for window in policy.windows:
        end = open_until(window, now, zone)
        if end is not None:
            return window.rate, min(until, end)
        if (at := opens_after(window, now, zone)) is not None:
            until = min(until, at)
    return policy.rate, until


def _next_open(policy: LinkPolicy, at: datetime, zone: tzinfo) -> datetime | None:
    """Return when, from a change on, the rate first is more than nothing."""
    if policy.rate == 0 and all(window.rate == 0 for window in policy.windows):
        return None
    for _ in range(_MOST_CHANGES):
        rate, until = _rate_at(policy, at, zone)
        if rate != 0:
            return at
        at = until
    return None


def _budgets(
    policy: LinkPolicy, state: BudgetState, now: datetime, zone: tzinfo, *, metered: bool
) -> Iterator[tuple[int, Period, str, datetime]]:
    """Yield each budget that holds now: its bytes, what was used, how to call it, and when it begins anew."""
    local = now.astimezone(zone)
    day, month = _numbers(now, zone)
    if policy.per_day is not None:
        yield policy.per_day, state.day, "today", _resumes(state.day, day, local, _DAY_S)
    if metered and policy.metered_per_day is not None:
        resumes = _resumes(state.metered, day, local, _DAY_S)
        yield policy.metered_per_day, state.metered, "today while metered", resumes
    if policy.per_month is not None:
        yield policy.per_month, state.month, "this month", _resumes(state.month, month, local, _MONTH_S)


def _resumes(period: Period, number: int, local: datetime, length_s: float) -> datetime:
    """Return when a period begins anew: at the next local midnight or first of a month."""
    if length_s == _DAY_S:
        begins = datetime.combine(local.date() + timedelta(days=1), time(), local.tzinfo).astimezone(UTC)
    else:
        after = local.date().replace(day=1) + timedelta(days=32)
        begins = datetime.combine(after.replace(day=1), time(), local.tzinfo).astimezone(UTC)
    if number < period.number:
        # The clock went back: a whole period from then at the latest.
        return local.astimezone(UTC) + timedelta(seconds=max(1.0, length_s - period.behind_s))
    return begins


def _numbers(now: datetime, zone: tzinfo) -> tuple[int, int]:
    local = now.astimezone(zone)
    return local.toordinal(), local.year * 12 + local.month


def _turn(period: Period, number: int, budget: int, carry: int, clock: tuple[float, float]) -> Period:
    forward_s, length_s = clock
    if period.number == 0:
        return Period(number, period.used)
    left = max(0, budget + period.saved - period.used)
    if number > period.number:
        return Period(number, saved=min(carry, left + (number - period.number - 1) * budget))
    if number == period.number:
        return msgspec.structs.replace(period, behind_s=0.0) if period.behind_s else period
    behind_s = period.behind_s + forward_s
    if behind_s >= length_s:
        return Period(number, saved=min(carry, left))
    return msgspec.structs.replace(period, behind_s=behind_s)


def _bytes(text: str | None) -> int | None:
    return None if text is None else parse_size(text)


def _carry(text: str, budget: int | None) -> int:
    if not text.endswith("%"):
        return parse_size(text)
    return (budget or 0) * int(text[:-1]) // 100
