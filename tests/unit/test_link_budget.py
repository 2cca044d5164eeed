"""The link budget: never more than it says, whatever the clock does, by the site's own time, and with a reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.carrier.limiting import Limiter
from skerry.delivery.budget import (
    Bucket,
    BudgetState,
    count_bytes,
    decide_flow,
    forecast_arrival,
    own_share,
    site_policy,
    turn_periods,
)
from skerry.delivery.windows import decide_switch
from skerry.spec.desired import LinkPolicy, OpenWindow, SitePolicy
from skerry.spec.site import LinkWindow, SiteLink, SiteSpec, SwitchWindow
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore

pytestmark = pytest.mark.delivery

ZURICH = ZoneInfo("Europe/Zurich")
NIGHT = LinkPolicy(rate=0, windows=(OpenWindow(cron="0 22 * * *", duration_s=8 * 3600.0, rate=1 << 20),))
MB = 1 << 20


def at(text: str) -> datetime:
    """Return an instant from the site's time on the wall."""
    return datetime.fromisoformat(text).replace(tzinfo=ZURICH).astimezone(UTC)


# ── rates by time of day ─────────────────────────────────────────────────────────────────────────────


def test_a_closed_link_says_when_its_window_opens() -> None:
    flow = decide_flow(NIGHT, BudgetState(), at("2026-05-04 12:00"), ZURICH)
    assert (flow.rate, flow.held) == (0, True)
    assert flow.until == at("2026-05-04 22:00")
    assert flow.why == "waiting for the link's window at 22:00 (Europe/Zurich)"


@pytest.mark.parametrize(
    ("when", "rate"),
    (
        ("2026-05-04 21:59:59", 0),
        ("2026-05-04 22:00:00", MB),
        ("2026-05-05 05:59:59", MB),
        ("2026-05-05 06:00:00", 0),
    ),
)
def test_a_window_is_open_from_its_time_for_its_duration(when: str, rate: int) -> None:
    assert decide_flow(NIGHT, BudgetState(), at(when), ZURICH).rate == rate


def test_the_end_of_a_window_is_when_to_look_again() -> None:
    assert decide_flow(NIGHT, BudgetState(), at("2026-05-04 23:00"), ZURICH).until == at("2026-05-05 06:00")


def test_of_several_open_windows_the_first_counts_and_the_next_takes_over() -> None:
    policy = LinkPolicy(
        rate=1000,
        windows=(
            OpenWindow(cron="0 12 * * *", duration_s=3600.0, rate=0),
            OpenWindow(cron="0 8 * * *", duration_s=10 * 3600.0, rate=2000),
        ),
    )
    rates = [
        decide_flow(policy, BudgetState(), at(f"2026-05-04 {hour}:30"), ZURICH).rate
        for hour in ("07", "09", "12", "13", "18")
    ]
    assert rates == [1000, 2000, 0, 2000, 1000]
    assert "at 13:00" in decide_flow(policy, BudgetState(), at("2026-05-04 12:30"), ZURICH).why


def test_a_link_that_nothing_opens_says_so() -> None:
    flow = decide_flow(LinkPolicy(rate=0), BudgetState(), at("2026-05-04 12:00"), ZURICH)
    assert flow.held and "no window opens it" in flow.why


def test_a_window_opens_once_on_the_day_with_an_hour_twice() -> None:
    """In the night to 25 October 2026 it is 02:30 twice."""
    policy = LinkPolicy(rate=0, windows=(OpenWindow(cron="30 2 * * *", duration_s=3600.0, rate=7),))
    start = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    open_minutes = [
        minute
        for minute in range(6 * 60)
        if decide_flow(policy, BudgetState(), start + timedelta(minutes=minute), ZURICH).rate
    ]
    assert len(open_minutes) == 60
    assert start + timedelta(minutes=open_minutes[0]) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_window_whose_time_is_skipped_opens_right_after() -> None:
    """In the night to 29 March 2026 there is no 02:30."""
    policy = LinkPolicy(rate=0, windows=(OpenWindow(cron="30 2 * * *", duration_s=3600.0, rate=7),))
    start = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
    rates = [
        decide_flow(policy, BudgetState(), start + timedelta(minutes=minute), ZURICH).rate
        for minute in (59, 61, 119, 121)
    ]
    assert rates == [0, 7, 7, 0]


@given(
    minute=st.integers(0, 527_000),
    windows=st.lists(
        st.builds(
            OpenWindow,
            cron=st.sampled_from(
                ("0 22 * * *", "30 2 * * *", "*/15 * * * *", "0 0 1 * *", "0 8 * * MON-FRI")
            ),
            duration_s=st.sampled_from((60.0, 3600.0, 8 * 3600.0, 86400.0)),
            rate=st.sampled_from((None, 0, 500)),
        ),
        max_size=3,
    ),
    rate=st.sampled_from((None, 0, 100)),
)
def test_a_decision_holds_until_it_says(minute: int, windows: list[OpenWindow], rate: int | None) -> None:
    policy = LinkPolicy(rate=rate, windows=tuple(windows))
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    flow = decide_flow(policy, BudgetState(), now, ZURICH)
    assert flow.until > now
    for share in (0.3, 0.999):
        between = now + (flow.until - now) * share
        assert decide_flow(policy, BudgetState(), between, ZURICH).rate == flow.rate
    if flow.held and "waiting" in flow.why:
        assert not decide_flow(policy, BudgetState(), flow.until, ZURICH).held


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────


def used(policy: LinkPolicy, state: BudgetState, size: int, when: datetime) -> BudgetState:
    return count_bytes(turn_periods(policy, state, when, ZURICH), size, metered=False)


def left(policy: LinkPolicy, state: BudgetState, when: datetime) -> int:
    found = decide_flow(policy, state, when, ZURICH).allowance
    assert found is not None
    return found


def test_a_day_that_is_used_up_says_when_it_goes_on() -> None:
    policy = LinkPolicy(per_day=50 * MB)
    state = used(policy, BudgetState(), 50 * MB, at("2026-05-04 12:00"))
    flow = decide_flow(policy, state, at("2026-05-04 13:00"), ZURICH)
    assert (flow.allowance, flow.until) == (0, at("2026-05-05 00:00"))
    assert flow.why.startswith("used 50.0 MiB of 50.0 MiB today, goes on at")
    assert left(policy, state, at("2026-05-05 00:00")) == 50 * MB


def test_a_month_begins_anew_on_its_first_at_the_sites_midnight() -> None:
    policy = LinkPolicy(per_month=9 * MB)
    state = used(policy, BudgetState(), 9 * MB, at("2026-05-04 12:00"))
    assert left(policy, state, at("2026-05-31 23:59")) == 0
    assert decide_flow(policy, state, at("2026-05-31 23:59"), ZURICH).until == at("2026-06-01 00:00")
    assert left(policy, state, at("2026-06-01 00:00")) == 9 * MB


def test_of_day_and_month_the_scarcer_one_counts() -> None:
    policy = LinkPolicy(per_day=5 * MB, per_month=8 * MB)
    state = used(policy, BudgetState(), 5 * MB, at("2026-05-04 12:00"))
    assert left(policy, state, at("2026-05-05 12:00")) == 3 * MB
    state = used(policy, state, 3 * MB, at("2026-05-05 12:00"))
    flow = decide_flow(policy, state, at("2026-05-05 13:00"), ZURICH)
    assert flow.until == at("2026-06-01 00:00")
    assert "this month" in flow.why


def test_what_was_not_used_is_saved_up_to_the_carry_over() -> None:
    policy = LinkPolicy(per_day=10 * MB, day_carry=15 * MB)
    state = used(policy, BudgetState(), 4 * MB, at("2026-05-04 12:00"))
    assert left(policy, state, at("2026-05-05 12:00")) == 16 * MB
    state = used(policy, state, 0, at("2026-05-05 12:00"))
    assert left(policy, state, at("2026-05-09 12:00")) == 25 * MB, "and days without a look count"
    assert (
        left(policy, used(policy, BudgetState(), 0, at("2026-05-04 12:00")), at("2026-05-04 13:00"))
        == 10 * MB
    )


def test_a_link_that_is_metered_keeps_to_less() -> None:
    policy = LinkPolicy(rate=10_000, per_day=9 * MB, metered_rate=1000, metered_per_day=2 * MB)
    now = at("2026-05-04 12:00")
    assert decide_flow(policy, BudgetState(), now, ZURICH).rate == 10_000
    flow = decide_flow(policy, BudgetState(), now, ZURICH, metered=True)
    assert (flow.rate, flow.allowance) == (1000, 2 * MB)
    state = count_bytes(turn_periods(policy, BudgetState(), now, ZURICH), 2 * MB, metered=True)
    flow = decide_flow(policy, state, now, ZURICH, metered=True)
    assert flow.held and "while metered" in flow.why
    assert left(policy, state, now) == 7 * MB, "what flowed while metered counts for the day, too"


def test_nothing_stated_limits_nothing() -> None:
    flow = decide_flow(LinkPolicy(), BudgetState(), at("2026-05-04 12:00"), ZURICH, metered=True)
    assert (flow.rate, flow.allowance, flow.held, flow.why) == (None, None, False, "")


@pytest.mark.parametrize(
    ("policy", "size", "arrives"),
    (
        (LinkPolicy(), 1 << 40, "2026-05-04 12:00"),
        (LinkPolicy(rate=MB), 3600 * MB, "2026-05-04 13:00"),
        (NIGHT, 60 * MB, "2026-05-04 22:01"),
        (NIGHT, (8 * 3600 + 60) * MB, "2026-05-05 22:01"),
        (LinkPolicy(per_day=50 * MB), 120 * MB, "2026-05-06 00:00"),
        (LinkPolicy(rate=MB, per_day=60 * MB), 90 * MB, "2026-05-05 00:00:30"),
    ),
)
def test_when_a_download_will_have_come_is_told_ahead(policy: LinkPolicy, size: int, arrives: str) -> None:
    found = forecast_arrival(policy, BudgetState(), at("2026-05-04 12:00"), ZURICH, size)
    assert found is not None
    assert abs(found - at(arrives)) < timedelta(seconds=2)


def test_what_never_comes_has_no_time() -> None:
    assert forecast_arrival(LinkPolicy(rate=0), BudgetState(), at("2026-05-04 12:00"), ZURICH, 1) is None


# ── wrong clocks ─────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_goes_back_grants_no_second_day() -> None:
    policy = LinkPolicy(per_day=5 * MB, per_month=50 * MB)
    state = used(policy, BudgetState(), 5 * MB, at("2026-05-05 00:10"))
    for when in ("2026-05-04 23:50", "2026-05-05 00:05", "2026-05-04 01:00", "2026-05-05 23:00"):
        state = turn_periods(policy, state, at(when), ZURICH)
        assert left(policy, state, at(when)) == 0
    assert left(policy, state, at("2026-05-06 00:00")) == 5 * MB


def test_a_clock_that_was_far_ahead_closes_the_link_for_a_day_at_most() -> None:
    policy = LinkPolicy(per_day=5 * MB)
    state = used(policy, BudgetState(), 5 * MB, at("2099-05-05 12:00"))
    start = at("2026-05-04 12:00")
    state = turn_periods(policy, state, start, ZURICH)
    flow = decide_flow(policy, state, start, ZURICH)
    assert flow.until == start + timedelta(days=1)
    for hour in range(1, 24):
        state = turn_periods(policy, state, start + timedelta(hours=hour), ZURICH)
        assert left(policy, state, start + timedelta(hours=hour)) == 0
    assert left(policy, state, start + timedelta(hours=24)) == 5 * MB


def read_greedily(
    policy: LinkPolicy, moves: list[tuple[int, int]], start: str = "2026-05-04 12:00"
) -> tuple[int, list[int]]:
    """Move the clock and read a chunk whenever that is allowed; return all bytes, and the days that were seen."""
    now, state, total, days = at(start), BudgetState(), 0, list[int]()
    for move_s, chunk in moves:
        now += timedelta(seconds=move_s)
        state = turn_periods(policy, state, now, ZURICH)
        days.append(now.astimezone(ZURICH).toordinal())
        if not decide_flow(policy, state, now, ZURICH).held:
            state = count_bytes(state, chunk, metered=False)
            total += chunk
    return total, days


CHUNK = 9
CARRIES = st.sampled_from((0, 3, 40))


@pytest.mark.rule("LINK-1")
@given(
    moves=st.lists(st.tuples(st.integers(0, 30 * 3600), st.integers(0, CHUNK)), min_size=1, max_size=80),
    carry=CARRIES,
)
def test_over_any_days_no_more_is_read_than_their_budgets_and_a_chunk_each(
    moves: list[tuple[int, int]], carry: int
) -> None:
    total, days = read_greedily(LinkPolicy(per_day=10, day_carry=carry), moves)
    assert total <= (days[-1] - days[0] + 1) * 10 + CHUNK * len(set(days))


@pytest.mark.rule("LINK-1")
@given(
    moves=st.lists(
        st.tuples(st.sampled_from((-7200, -60, 60, 3600, 7200)), st.integers(0, CHUNK)),
        min_size=1,
        max_size=80,
    )
)
def test_a_clock_that_is_set_to_and_fro_gives_no_day_twice(moves: list[tuple[int, int]]) -> None:
    total, days = read_greedily(LinkPolicy(per_day=10), moves, start="2026-05-04 23:58")
    behind_s = sum(max(0, move_s) for move_s, _ in moves)
    # Days that begin later than any before, and one for each whole day that the clock ran on behind them.
    granted = len(set(range(days[0], max(days) + 1))) + int(behind_s // 86400)
    assert total <= granted * (10 + CHUNK)


@pytest.mark.rule("LINK-1")
@given(
    moves=st.lists(
        st.tuples(st.integers(-400 * 86400, 400 * 86400), st.integers(0, CHUNK)), min_size=1, max_size=40
    ),
    carry=CARRIES,
)
def test_whatever_the_clock_does_only_time_that_went_forward_gives_bytes(
    moves: list[tuple[int, int]], carry: int
) -> None:
    total, _ = read_greedily(LinkPolicy(per_day=10, day_carry=carry), moves)
    forward_days = sum(max(0, move_s) for move_s, _ in moves) / 86400
    assert total <= (2 * forward_days + 2) * (10 + CHUNK)


@given(moves=st.lists(st.tuples(st.integers(-400 * 86400, 400 * 86400), st.integers(0, 99)), max_size=30))
def test_after_any_history_a_clock_that_runs_opens_the_link_again(moves: list[tuple[int, int]]) -> None:
    policy = LinkPolicy(per_day=10, per_month=200)
    now, state = at("2026-05-04 12:00"), BudgetState()
    for move_s, chunk in moves:
        now += timedelta(seconds=move_s)
        state = count_bytes(turn_periods(policy, state, now, ZURICH), chunk, metered=False)
    held: list[bool] = []
    for _ in range(63):
        now += timedelta(days=1)
        state = turn_periods(policy, state, now, ZURICH)
        state = msgspec.json.decode(msgspec.json.encode(state), type=BudgetState)  # as over a restart
        held.append(decide_flow(policy, state, now, ZURICH).held)
    assert not all(held), "not for longer than two months, the one it was in and the one it went back to"


# ── the bucket ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("LINK-2")
@given(
    rate=st.integers(1024, 1 << 24),
    chunks=st.lists(st.floats(0.01, 0.25), min_size=1, max_size=20),
    idle_s=st.floats(0, 1000),
)
def test_over_any_minute_a_rate_is_kept_to_five_percent(
    rate: int, chunks: list[float], idle_s: float
) -> None:
    bucket, now = Bucket(rate, 0.0), idle_s
    came: list[tuple[float, int]] = []
    number = 0
    while now < idle_s + 120:
        size = max(1, int(rate * chunks[number % len(chunks)]))
        number += 1
        came.append((now, size))
        now += bucket.take(size, now)
    for start in (idle_s, idle_s + 17, idle_s + 59):
        minute = sum(size for when, size in came if start <= when < start + 60)
        assert abs(minute / (60 * rate) - 1) <= 0.05


def test_a_clock_that_stands_or_goes_back_gives_no_tokens() -> None:
    bucket = Bucket(1000, 100.0)
    assert bucket.take(1000, 100.0) == pytest.approx(0.5, abs=0.51)
    before = bucket.take(0, 100.0)
    assert bucket.take(0, 50.0) == before
    assert bucket.take(1000, 100.0) > before


def test_another_rate_keeps_the_debt() -> None:
    bucket = Bucket(1000, 0.0)
    wait_s = bucket.take(10_000, 0.0)
    bucket.tune(10_000, 0.0)
    assert bucket.take(0, 0.0) == pytest.approx(wait_s / 10, rel=0.1)


# ── a site's policy ──────────────────────────────────────────────────────────────────────────────────


def test_each_host_has_an_equal_share() -> None:
    link = SiteLink(
        rate="64KiB/s",
        windows=(
            LinkWindow(cron="0 22 * * *", duration="8h"),
            LinkWindow(cron="0 1 * * *", duration="1h", rate=0),
        ),
        per_day="40MiB",
        carry_over="50%",
    )
    policy = site_policy(SiteSpec(link=link, time_zone="Europe/Zurich"), hosts=4)
    assert policy.link is not None and policy.time_zone == "Europe/Zurich"
    own = own_share(policy.link)
    assert (own.rate, own.per_day, own.day_carry) == (16 << 10, 10 * MB, 5 * MB)
    assert [window.rate for window in own.windows] == [None, 0]
    state = count_bytes(
        turn_periods(own, BudgetState(), at("2026-05-04 12:00"), ZURICH), 15 * MB, metered=False
    )
    why = decide_flow(own, state, at("2026-05-04 12:00"), ZURICH).why
    assert "used 15.0 MiB of this host's 10.0 MiB today" in why


def test_a_site_that_states_nothing_has_no_policy_to_send() -> None:
    policy = site_policy(SiteSpec(time_zone="Europe/Zurich"), hosts=3)
    assert policy == type(policy)()


@pytest.mark.rule("LINK-4")
@pytest.mark.parametrize(
    ("night", "cron", "opens", "minutes"),
    (
        # On 25 October 2026 it is 02:30 twice, and the window is an hour of real time, once.
        ("2026-10-25 00:00", "30 2 * * *", "2026-10-25 02:30", 60),
        # From 01:30 for two hours: 01:30 to the second 02:30.
        ("2026-10-25 00:00", "30 1 * * *", "2026-10-25 01:30", 120),
        # On 29 March 2026 there is no 02:30: it opens at 03:00, which follows 01:59.
        ("2026-03-29 00:00", "30 2 * * *", "2026-03-29 03:00", 60),
    ),
)
def test_a_switch_window_is_as_long_as_stated_when_clocks_change(
    night: str, cron: str, opens: str, minutes: int
) -> None:
    windows = (OpenWindow(cron=cron, duration_s=minutes * 60.0),)
    clock = SimulatedClock(at(night).astimezone(UTC))
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)
    limiter.follow(SitePolicy(switch_windows=windows, time_zone="Europe/Zurich"), {})
    opened: list[datetime] = []
    for _ in range(7 * 60):
        waits = limiter.switch_wait()
        assert bool(waits) == bool(decide_switch(windows, clock.now(), ZURICH, "Europe/Zurich")[0])
        if not waits:
            opened.append(clock.now())
        clock.advance(60.0)
    assert opened[0] == at(opens)
    assert len(opened) == minutes
    assert opened[-1] - opened[0] == timedelta(minutes=minutes - 1), "in one piece"


def test_switches_wait_for_the_sites_window() -> None:
    spec = SiteSpec(switch_windows=(SwitchWindow(cron="0 2 * * SUN", duration="2h"),))
    windows = site_policy(spec, hosts=1).switch_windows
    why, until = decide_switch(windows, at("2026-05-04 12:00"), ZURICH, "Europe/Zurich")
    assert why == "ready; waiting for the site's window at Sun 2026-05-10 02:00 (Europe/Zurich)"
    assert until == at("2026-05-10 02:00")
    assert decide_switch(windows, at("2026-05-10 03:59"), ZURICH, "Europe/Zurich") == ("", None)
    assert decide_switch((), at("2026-05-04 12:00"), ZURICH, "Europe/Zurich") == ("", None)
