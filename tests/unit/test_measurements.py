"""What was measured survives restarts, months without a hub, late samples and wrong clocks, and is told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.agent.measurements import Measurements, Telling
from skerry.kit.errors import Unavailable
from skerry.ports.agent_store import AgentStore
from skerry.spec.metrics import MetricWindow, Rate
from skerry.spec.telemetry import MAX_WINDOWS_PER_BATCH
from skerry.telemetry.keeping import DAY_S, HOUR_S, MINUTE_S, Kept, Series, State, plan_keeping
from skerry.testing.faults import FaultPlan, FaultyAgentStore
from skerry.testing.memory import MemoryAgentStore

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ERRORS = Series("reader", "reader@1.0.0", "main", "errors")


class Host:
    """A host's measurements, and its clock."""

    def __init__(self, store: AgentStore | None = None, *, most: int = 3000) -> None:
        self.time = START
        self.store = store or MemoryAgentStore()
        self.most = most
        self.restart()

    def restart(self) -> None:
        """Begin anew with what is on the disk."""
        self.kept = Measurements(self.store, lambda: self.time, most=self.most)

    def measure(self, count: int = 1, *, bad: int = 0, series: Series = ERRORS) -> None:
        """Count requests now."""
        self.kept.add(series, Rate(bad=bad, total=count))

    def pass_(self, **time: float) -> None:
        """Let time pass and store what has ended."""
        self.time += timedelta(**time)
        self.kept.flush()

    def total(self) -> int:
        """Return how many requests are known of in all."""
        return sum(count_of(window) for window in self.kept.windows("reader", ("reader@1.0.0",)))

    def tell_all(self, hub: dict[tuple[str, datetime], MetricWindow]) -> int:
        """Tell a hub everything there is; return in how many batches."""
        batches = 0
        while (telling := self.kept.next_telling()).rows:
            take(hub, telling)
            self.kept.note_told(telling)
            batches += 1
        return batches


def take(hub: dict[tuple[str, datetime], MetricWindow], telling: Telling) -> None:
    """Store windows as a hub does."""
    hub.update({(window.metric, window.begin): window for window in telling.windows})


def count_of(window: MetricWindow) -> int:
    assert isinstance(window.value, Rate)
    return window.value.total


def told(hub: dict[tuple[str, datetime], MetricWindow]) -> int:
    return sum(map(count_of, hub.values()))


def test_a_minute_is_one_window_and_what_is_under_way_counts_at_once() -> None:
    host = Host()
    host.measure(3)
    host.pass_(seconds=30)
    host.measure(4)
    assert [(count_of(w), w.begin, w.end) for w in host.kept.windows("reader", ("reader@1.0.0",))] == [
        (7, START, START + timedelta(minutes=1))
    ]
    assert host.kept.windows("reader", ("reader@2.0.0",)) == []
    assert host.kept.next_telling().rows == (), "nothing has ended"
    host.pass_(seconds=30)
    assert [count_of(window) for window in host.kept.next_telling().windows] == [7]


def test_a_restart_in_the_middle_of_a_minute_loses_nothing_that_was_stored_and_tells_it_once() -> None:
    host, hub = Host(), dict[tuple[str, datetime], MetricWindow]()
    host.measure(3)
    host.kept.flush(everything=True)
    host.restart()
    host.measure(4)
    host.pass_(minutes=1)
    host.tell_all(hub)
    assert [count_of(window) for window in hub.values()] == [7]
    assert host.tell_all(hub) == 0


def test_what_is_told_and_not_acknowledged_is_told_again_and_replaces_itself() -> None:
    host, hub = Host(), dict[tuple[str, datetime], MetricWindow]()
    host.measure(3)
    host.pass_(minutes=1)
    take(hub, host.kept.next_telling())
    host.restart()
    host.tell_all(hub)
    assert told(hub) == 3


def test_a_late_sample_belongs_to_its_window_which_is_told_again() -> None:
    host, hub = Host(), dict[tuple[str, datetime], MetricWindow]()
    host.measure(3)
    host.pass_(minutes=5)
    host.tell_all(hub)
    host.time = START + timedelta(seconds=10)  # a clock that was set back
    host.measure(2)
    host.pass_(minutes=10)
    host.tell_all(hub)
    assert told(hub) == host.total() == 5
    assert len(hub) == 1


def test_a_window_that_changes_while_it_is_told_is_told_again() -> None:
    host, hub = Host(), dict[tuple[str, datetime], MetricWindow]()
    host.measure(3)
    host.pass_(minutes=1)
    telling = host.kept.next_telling()
    take(hub, telling)
    host.time = START
    host.measure(2)
    host.pass_(minutes=2)
    host.kept.note_told(telling)
    host.tell_all(hub)
    assert told(hub) == 5


@pytest.mark.rule("SYNC-5")
def test_months_offline_fit_into_the_store_and_come_in_bounded_batches_with_nothing_lost_or_doubled() -> None:
    host, hub = Host(most=500), dict[tuple[str, datetime], MetricWindow]()
    for day in range(120):
        for hour in range(24):
            host.time = START + timedelta(days=day, hours=hour)
            host.measure(10)
            host.time += timedelta(minutes=1)
            host.measure(1)
        host.pass_(minutes=1)
    assert len(host.store.window_names()) <= 500
    assert host.total() == 120 * 24 * 11
    batches = host.tell_all(hub)
    assert told(hub) == 120 * 24 * 11
    assert batches >= len(hub) / MAX_WINDOWS_PER_BATCH
    assert host.kept.next_telling().dropped == 0


def test_beyond_the_bound_the_oldest_go_and_how_many_went_untold_is_told() -> None:
    host = Host(most=10)
    for minute in range(30):
        host.time = START + timedelta(minutes=minute)
        host.measure()
    host.pass_(minutes=2)
    host.restart()
    telling = host.kept.next_telling()
    assert len(telling.rows) == 10
    assert telling.dropped == 20
    assert telling.windows[0].begin == START + timedelta(minutes=20)
    host.kept.note_told(telling)
    assert host.kept.next_telling().dropped == 0


def test_windows_of_a_clock_that_was_far_ahead_do_not_stay_for_ever() -> None:
    host = Host()
    host.time = START + timedelta(days=20_000)
    host.measure(5)
    host.kept.flush(everything=True)
    host.time = START
    host.measure(1)
    host.pass_(minutes=2)
    assert host.total() == 1
    assert host.kept.next_telling().dropped == 1


def test_a_late_sample_into_what_the_hub_has_by_the_minute_is_not_told_twice() -> None:
    host, hub = Host(), dict[tuple[str, datetime], MetricWindow]()
    for minute in range(60):
        host.time = START + timedelta(minutes=minute)
        host.measure()
    host.pass_(minutes=2)
    host.tell_all(hub)
    host.pass_(hours=8)
    assert len(host.store.window_names()) == 1, "an hour by now"
    host.time = START + timedelta(minutes=3)
    host.measure()
    host.pass_(hours=9)
    host.tell_all(hub)
    assert told(hub) == 60
    assert host.total() == 61


def test_on_a_full_disk_nothing_is_lost_that_there_is_room_for_in_memory() -> None:
    plan = FaultPlan()
    host = Host(FaultyAgentStore(MemoryAgentStore(), plan))
    host.measure(3)
    plan.fail("change_windows", Unavailable("disk.full", "no room"))
    with pytest.raises(Unavailable):
        host.pass_(minutes=1)
    assert host.total() == 3
    host.pass_(minutes=1)
    assert host.total() == 3
    assert [count_of(window) for window in host.kept.next_telling().windows] == [3]


def a_window(release: str, minute: int, state: State) -> Kept:
    series = Series("reader", release, "main", "errors")
    return Kept(series, minute * MINUTE_S, (minute + 1) * MINUTE_S, state)


some_states: st.SearchStrategy[State] = st.sampled_from(("new", "doubt", "told"))
windows = st.lists(
    st.builds(a_window, st.sampled_from(("1", "2")), st.integers(0, 20 * 24 * 60), some_states),
    max_size=60,
    unique_by=lambda window: (window.series, window.begin),
)


@given(windows, st.integers(0, 60 * DAY_S), st.integers(1, 40))
def test_what_is_kept_never_mixes_what_was_told_with_what_was_not(
    kept: list[Kept], now: int, most: int
) -> None:
    plan = plan_keeping(kept, now=now, most=most)
    merged = [part for parts in plan.merge.values() for part in parts]
    assert len({*merged, *plan.drop}) == len(merged) + len(plan.drop), "each goes one way"
    for window, parts in plan.merge.items():
        assert {part.state for part in parts} == {window.state} != {"doubt"}
        assert window.end - window.begin in (HOUR_S, DAY_S)
        assert all(window.begin <= part.begin and part.end <= window.end <= now for part in parts)
        assert {part.series for part in parts} == {window.series}
    left = len(kept) - len(merged) - len(plan.drop) + len(plan.merge)
    assert left <= most
    states: set[State] = {"new", "doubt", "told"}
    assert {window.state for window in plan.merge} <= states
