"""Reports on their way: whatever is cut, full or lost, each event arrives once and in order, or is counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from skerry.agent.outbox import MAX_PENDING_EVENTS, MAX_QUEUED, RESERVE, Outbox
from skerry.kit.errors import Unavailable
from skerry.ports.agent_store import AgentStore
from skerry.spec.carrier import MAX_BODY_BYTES, MAX_SYNC_REPORTS, JsonEnvelope, SyncRequest
from skerry.spec.report import Event, Observed
from skerry.testing.faults import FaultPlan, FaultyAgentStore, PowerCut, When
from skerry.testing.memory import MemoryAgentStore
from tests.unit.upstream import NOW, identity, report_of

T = TypeVar("T")
DISK_FULL = Unavailable("disk.full", "no room left in this test")
WRITES = ("save", "put_report", "mark_sent", "acknowledge", "drop_oldest")


def event(number: int, padding: str = "") -> Event:
    return Event(at=NOW + timedelta(seconds=number), kind="test.happened", message=f"{number}{padding}")


def flush(outbox: Outbox) -> bool:
    return outbox.flush(sent_at=NOW, clock=NOW)


def collect(outbox: Outbox) -> tuple[list[JsonEnvelope], int | None]:
    return outbox.collect(sent_at=NOW, clock=NOW, generation=1, observed=Observed(), facts=None)


class Hub:
    """Applies reports as the hub does: those above the last number only."""

    def __init__(self) -> None:
        self.sequence = 0
        self.events: list[int] = []
        self.dropped = 0
        self.heard: dict[int, JsonEnvelope] = {}

    def receive(self, envelopes: list[JsonEnvelope]) -> int:
        """Take a request and return the acknowledgement."""
        reports = [report_of(envelope) for envelope in envelopes]
        assert len(envelopes) <= MAX_SYNC_REPORTS
        assert [r.sequence for r in reports] == sorted({r.sequence for r in reports})
        for report, envelope in zip(reports, envelopes, strict=True):
            if report.events:
                assert self.heard.setdefault(report.sequence, envelope) == envelope, "a sent report changed"
            if report.sequence > self.sequence:
                self.sequence = report.sequence
                self.events.extend(int(event.message.split()[0]) for event in report.events)
                self.dropped += report.dropped_events
        return self.sequence


class LossyWay:
    """A host, its disk, its link and the hub; everything may fail at any moment."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.plan = FaultPlan()
        self.disk: AgentStore = MemoryAgentStore()
        self.outbox = self.boot()
        self.noted = 0
        self.pending: list[int] = []
        self.durable: list[int] = []
        self.on_the_way: list[list[JsonEnvelope]] = []
        self.newest_fresh = 0
        self.was_full = False

    def boot(self) -> Outbox:
        while True:
            try:
                return Outbox(identity(), FaultyAgentStore(self.disk, self.plan))
            except PowerCut:
                self.plan.restore_power()

    def restart(self) -> None:
        self.plan.restore_power()
        self.pending = []
        self.outbox = self.boot()

    def live(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except PowerCut:
            self.restart()
        except Unavailable:
            pass
        return None

    def note(self, count: int) -> None:
        for _ in range(count):
            self.noted += 1
            self.pending.append(self.noted)
            self.outbox.note(event(self.noted))

    def flush(self) -> None:
        if self.live(lambda: flush(self.outbox)):
            self.durable += self.pending
            self.pending = []

    def exchange(self, fate: str) -> None:
        collected = self.live(lambda: collect(self.outbox))
        if collected is None:
            return
        envelopes, fresh = collected
        if fresh is not None:
            assert fresh > self.newest_fresh or self.was_full, "a number was used twice"
            self.newest_fresh = fresh
        if fate == "late":
            self.on_the_way.append(envelopes)
        elif fate != "request lost":
            acknowledged = self.hub.receive(envelopes)
            if fate == "arrives":
                self.live(lambda: self.outbox.acknowledge(acknowledged))

    def deliver_late(self, index: int) -> None:
        """Let a request arrive that was under way or is repeated; its answer is lost."""
        if self.on_the_way:
            self.hub.receive(self.on_the_way[index % len(self.on_the_way)])

    def cut_power(self, nth: int, when: When) -> None:
        self.plan.kill(nth=nth, when=when)

    def fill_disk(self, calls: int) -> None:
        self.was_full = True
        for method in WRITES:
            for nth in range(1, calls + 1):
                self.plan.fail(method, DISK_FULL, nth=nth)

    def lose_database(self) -> None:
        """What it held is lost with it, and so is what was under way, but nothing that is told afterwards."""
        self.disk = MemoryAgentStore()
        self.on_the_way = []
        self.durable = []
        self.newest_fresh = 0
        self.restart()

    def settle(self) -> None:
        """Let everything work again, and everything arrive."""
        self.plan = FaultPlan()
        self.restart()
        envelopes: list[JsonEnvelope] = []
        while len(envelopes) != 1:
            envelopes, _ = collect(self.outbox)
            self.outbox.acknowledge(self.hub.receive(envelopes))


some = st.sampled_from
steps = st.one_of(
    st.tuples(some(["note"]), some([1, 1, 3])),
    st.tuples(some(["flush"])),
    st.tuples(some(["flush"])),
    st.tuples(some(["exchange"]), some(["arrives", "answer lost", "request lost", "late"])),
    st.tuples(some(["exchange"]), some(["arrives", "answer lost", "request lost", "late"])),
    st.tuples(some(["deliver_late"]), some(range(4))),
    st.one_of(
        st.tuples(some(["cut_power"]), some(range(1, 7)), some(["before", "after"])),
        st.tuples(some(["fill_disk"]), some(range(1, 4))),
        st.tuples(some(["restart", "restart", "restart", "lose_database"])),
    ),
)


@pytest.mark.rule("SYNC-3")
@pytest.mark.rule("SYNC-4")
@settings(max_examples=150)
@given(st.lists(steps, min_size=30, max_size=60))
def test_every_flushed_event_arrives_once_and_in_order_whatever_fails(script: list[tuple[Any, ...]]) -> None:
    world = LossyWay()
    for name, *arguments in script:
        getattr(world, name)(*arguments)
        assert world.hub.events == sorted(set(world.hub.events))
    world.settle()
    assert world.hub.events == sorted(set(world.hub.events))
    assert sorted(set(world.durable) - set(world.hub.events)) == [], "flushed, and never arrived"
    assert world.hub.dropped == 0


def test_events_are_merged_into_the_newest_report_until_it_is_sent() -> None:
    outbox = Outbox(identity(), MemoryAgentStore())
    for number in range(5):
        outbox.note(event(number))
        assert flush(outbox)
    first, _ = collect(outbox)
    assert [len(report_of(envelope).events) for envelope in first] == [5, 0]
    outbox.note(event(5))
    assert flush(outbox)
    second, _ = collect(outbox)
    assert second[0] == first[0], "what was sent is sent again as it was"
    assert [len(report_of(envelope).events) for envelope in second] == [5, 1, 0]


def test_with_nothing_noted_there_is_nothing_to_flush() -> None:
    plan = FaultPlan()
    outbox = Outbox(identity(), FaultyAgentStore(MemoryAgentStore(), plan))
    assert not flush(outbox)
    for _ in range(50):
        outbox.acknowledge(collect(outbox)[1] or 0)
    assert plan.calls("put_report") == 0
    assert plan.calls("save") <= 2, "heartbeats cost no writes"


@pytest.mark.rule("SYNC-4")
def test_an_overfull_queue_drops_the_oldest_and_counts_every_event_it_drops() -> None:
    store = MemoryAgentStore()
    outbox, hub, noted = Outbox(identity(), store), Hub(), 0
    for round_ in range(MAX_QUEUED + 30):
        for _ in range(1 + round_ % 3):
            noted += 1
            outbox.note(event(noted))
        flush(outbox)
        if round_ == MAX_QUEUED + 10:
            outbox = Outbox(identity(), store)
        collect(outbox)  # sent, and lost
    assert len(store.reports(2 * MAX_QUEUED)) == MAX_QUEUED
    while hub.events[-1:] != [noted]:
        outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.events == list(range(noted - len(hub.events) + 1, noted + 1))
    assert hub.dropped == noted - len(hub.events) > 0
    assert store.reports(1) == []


@pytest.mark.rule("SYNC-4")
@pytest.mark.parametrize("when", ("before", "after"))
def test_a_power_cut_while_dropping_never_counts_too_few(when: When) -> None:
    store, plan = MemoryAgentStore(), FaultPlan()
    outbox, hub = Outbox(identity(), store), Hub()
    for number in range(1, MAX_QUEUED + 1):
        outbox.note(event(number))
        flush(outbox)
        collect(outbox)
    outbox = Outbox(
        identity(),
        FaultyAgentStore(store, plan.kill("drop_oldest", when=when)),
    )
    outbox.note(event(MAX_QUEUED + 1))
    with pytest.raises(PowerCut):
        flush(outbox)
    outbox = Outbox(identity(), store)
    outbox.note(event(MAX_QUEUED + 2))
    flush(outbox)
    while hub.events[-1:] != [MAX_QUEUED + 2]:
        outbox.acknowledge(hub.receive(collect(outbox)[0]))
    missing = MAX_QUEUED + 2 - len(hub.events)
    assert missing == 2
    assert hub.dropped >= missing


def test_memory_is_bounded_while_the_disk_is_full_and_what_was_forgotten_is_counted() -> None:
    plan = FaultPlan()
    outbox, hub = Outbox(identity(), FaultyAgentStore(MemoryAgentStore(), plan)), Hub()
    surplus = 25
    for nth in range(1, MAX_PENDING_EVENTS + surplus + 1):
        plan.fail("save", DISK_FULL, nth=nth)
    for number in range(1, MAX_PENDING_EVENTS + surplus + 1):
        outbox.note(event(number))
        with pytest.raises(Unavailable):
            flush(outbox)
    while flush(outbox):
        continue
    outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.dropped == surplus
    assert hub.events == list(range(surplus + 1, MAX_PENDING_EVENTS + surplus + 1))


@pytest.mark.rule("SYNC-4")
@pytest.mark.parametrize("method", ("save", "put_report"))
def test_an_event_that_a_full_disk_refused_is_kept_and_told_later(method: str) -> None:
    outbox, hub = (
        Outbox(identity(), FaultyAgentStore(MemoryAgentStore(), FaultPlan().fail(method, DISK_FULL))),
        Hub(),
    )
    outbox.note(event(1))
    with pytest.raises(Unavailable):
        flush(outbox)
    outbox.note(event(2))
    assert flush(outbox)
    hub.receive(collect(outbox)[0])
    assert hub.events == [1, 2]


@pytest.mark.rule("SYNC-4")
def test_an_event_never_gets_a_number_that_a_host_with_a_full_disk_used_before_a_crash() -> None:
    store, plan, hub = MemoryAgentStore(), FaultPlan(), Hub()
    outbox = Outbox(identity(), FaultyAgentStore(store, plan))
    for nth in range(2, 100):
        plan.fail("save", DISK_FULL, nth=nth)
    for _ in range(RESERVE + 50):
        hub.receive(collect(outbox)[0])
    outbox, told = Outbox(identity(), store), 80
    for number in range(1, told + 1):
        outbox.note(event(number))
        flush(outbox)
        collect(outbox)  # sent, and lost
    outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.events == list(range(1, told + 1))


@pytest.mark.rule("SYNC-4")
def test_no_event_is_queued_under_a_number_that_could_not_be_reserved() -> None:
    store, plan, hub = MemoryAgentStore(), FaultPlan(), Hub()
    first = Outbox(identity(), store)
    hub.receive(collect(first)[0])
    outbox = Outbox(identity(), FaultyAgentStore(store, plan.fail("save", DISK_FULL)))
    outbox.note(event(1))
    with pytest.raises(Unavailable):
        flush(outbox)
    assert store.reports(1) == []
    assert flush(outbox)
    again = Outbox(identity(), store)
    again.note(event(2))
    assert flush(again)
    assert [queued.sequence for queued in store.reports(9)] == sorted({r.sequence for r in store.reports(9)})
    hub.receive(collect(again)[0])
    assert hub.events == [1, 2]


def test_a_host_with_a_full_disk_still_says_so() -> None:
    store, plan = MemoryAgentStore(), FaultPlan()
    outbox, hub = Outbox(identity(), FaultyAgentStore(store, plan)), Hub()
    outbox.note(event(1))
    flush(outbox)
    for method in WRITES:
        for nth in range(1, 40):
            plan.fail(method, DISK_FULL, nth=nth)
    for _ in range(10):
        envelopes, fresh = collect(outbox)
        assert fresh is not None
        assert hub.receive(envelopes) == fresh
        outbox.acknowledge(fresh)
    assert hub.events == [1]


def test_a_host_that_started_with_a_full_disk_still_says_so() -> None:
    store, plan, hub = MemoryAgentStore(), FaultPlan(), Hub()
    hub.receive(collect(Outbox(identity(), store))[0])
    for nth in range(1, 40):
        plan.fail("save", DISK_FULL, nth=nth)
    outbox = Outbox(identity(), FaultyAgentStore(store, plan))
    for _ in range(10):
        envelopes, fresh = collect(outbox)
        assert hub.receive(envelopes) == fresh


@pytest.mark.rule("SYNC-4")
def test_no_queue_however_long_makes_a_request_that_the_hub_refuses_as_too_large() -> None:
    outbox, hub, noted = Outbox(identity(), MemoryAgentStore()), Hub(), 0
    for _ in range(60):
        for _ in range(20):
            noted += 1
            outbox.note(event(noted, " " + "\x01" * 4000))
        while flush(outbox):
            continue
        collect(outbox)
    while hub.events[-1:] != [noted]:
        envelopes, fresh = collect(outbox)
        body = msgspec.json.encode(SyncRequest(reports=tuple(envelopes)))
        assert len(body) < MAX_BODY_BYTES
        assert fresh is None or hub.sequence < fresh
        outbox.acknowledge(hub.receive(envelopes))
    assert hub.events == list(range(1, noted + 1))


@pytest.mark.rule("SYNC-4")
def test_what_a_new_database_queued_before_it_heard_of_higher_numbers_is_told_above_them() -> None:
    hub = Hub()
    hub.sequence = (1 << 52) + 5
    outbox = Outbox(identity(), MemoryAgentStore())
    for number in (1, 2, 3):
        outbox.note(event(number))
        flush(outbox)
        collect(outbox)
    outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.events == []
    outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.events == [1, 2, 3]


@pytest.mark.rule("SYNC-4")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("nth", range(1, 8))
def test_a_power_cut_while_numbers_change_neither_loses_nor_doubles_an_event(nth: int, when: When) -> None:
    store, plan, hub = MemoryAgentStore(), FaultPlan(), Hub()
    hub.sequence = 1 << 52
    outbox = Outbox(identity(), FaultyAgentStore(store, plan))
    for number in (1, 2, 3):
        outbox.note(event(number))
        flush(outbox)
        collect(outbox)
    acknowledged = hub.receive(collect(outbox)[0])
    plan.kill(nth=nth, when=when)
    try:
        outbox.acknowledge(acknowledged)
    except PowerCut:
        outbox = Outbox(identity(), store)
    for _ in range(3):
        plan.restore_power()
        outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.events == [1, 2, 3]


@pytest.mark.parametrize("up_to", (1 << 53, 1 << 63, 1 << 80, -1))
def test_an_absurd_acknowledgement_does_no_harm(up_to: int) -> None:
    outbox, hub = Outbox(identity(), MemoryAgentStore()), Hub()
    outbox.note(event(1))
    flush(outbox)
    _, before = collect(outbox)
    outbox.acknowledge(up_to)
    _, after = collect(outbox)
    assert before is not None
    assert after == before + 1
    outbox.note(event(2))
    flush(outbox)
    outbox.acknowledge(hub.receive(collect(outbox)[0]))
    assert hub.events[-1] == 2
