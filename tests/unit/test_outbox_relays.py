"""A host behind relays: whichever way it goes up and whatever a relay loses, the hub hears all once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from skerry.agent.loops.sync import Syncer
from skerry.agent.outbox import MAX_QUEUED, Outbox
from skerry.kit.errors import Unavailable
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.report import Event, Observed, Report
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.report import unbroken
from tests.unit.upstream import NOW, ScriptedLink, identity, report_of


class Hub:
    """Applies reports as the hub does."""

    def __init__(self) -> None:
        self.sequence = 0
        self.events: list[int] = []
        self.observed = Observed()
        self.dropped = 0

    def take(self, reports: Sequence[Report]) -> SyncAnswer:
        """Apply what is new and follows on what was applied."""
        whole = unbroken(reports, self.sequence)
        for report in whole:
            if report.sequence > self.sequence:
                self.sequence = report.sequence
                self.events += [int(event.message) for event in report.events]
                self.observed = report.observed or self.observed
                self.dropped += report.dropped_events
        return SyncAnswer(acknowledged=self.sequence, tell_all=len(whole) < len(reports))


class Way:
    """A relay as it is meant to be, above which there is the hub or another. `lose_disk` takes all it remembers."""

    def __init__(self, name: str, above: Hub | Way) -> None:
        self.name, self.above, self.disks = name, above, 0
        self.lose_disk()

    def lose_disk(self) -> None:
        """Begin anew, with an empty one."""
        self.disks += 1
        self.queue: list[Report] = []
        self.held = self.acknowledged = 0
        self.again = False

    def take(self, reports: Sequence[Report]) -> SyncAnswer:
        """Hold what is new and follows on what was held."""
        newest = max(self.held, self.acknowledged)
        whole = unbroken(reports, newest)
        for report in whole:
            if report.sequence > newest:
                self._put(report)
        self.held = newest = max(newest, *(report.sequence for report in whole), 0)
        again, self.again = self.again or len(whole) < len(reports), False
        return SyncAnswer(
            acknowledged=self.acknowledged, held=newest, keeper=f"{self.name}/{self.disks}", tell_all=again
        )

    def _put(self, report: Report) -> None:
        def says(report: Report) -> bool:
            return bool(report.events or report.observed or report.facts or report.dropped_events)

        if self.queue and not says(self.queue[-1]) and not says(report):
            self.queue.pop()
        self.queue.append(report)

    def forward(self, count: int, *, answer_lost: bool = False) -> None:
        """Hand the oldest up, and forget what the one above holds."""
        answer = self.above.take(self.queue[:count]) if self.queue else None
        if answer is None or answer_lost:
            return
        self.acknowledged = max(self.acknowledged, answer.acknowledged)
        there = max(self.acknowledged, answer.held)
        self.queue = [report for report in self.queue if report.sequence > there]
        if answer.tell_all:
            self.queue, self.held, self.again = [], self.acknowledged, True

    def give_up(self) -> None:
        """Drop the oldest, as a relay does whose disk is full."""
        self.queue = self.queue[1:]


class World:
    """A host with two ways up: by `low`, which is behind `high`, or by `other`; or straight to the hub."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.high = Way("high", self.hub)
        self.ways: list[Hub | Way] = [Way("low", self.high), Way("other", self.hub), self.hub]
        self.relays = [way for way in (*self.ways, self.high) if isinstance(way, Way)]
        self.at, self.fate = 0, "arrives"
        self.noted, self.phase = 0, 0
        self.on_the_way: list[tuple[int, Sequence[Report]]] = []
        self.store = MemoryAgentStore()
        self.link = ScriptedLink(self._answer)
        self.restart()

    def _answer(self, request: SyncRequest, newest: Report) -> SyncAnswer:
        reports = [report_of(envelope) for envelope in request.reports]
        if self.fate == "late":
            self.on_the_way.append((self.at, reports))
        if self.fate in ("late", "request lost"):
            raise Unavailable("link.cut", "no way")
        answer = self.ways[self.at].take(reports)
        if self.fate == "answer lost":
            raise Unavailable("link.cut", "no way")
        return answer

    def restart(self) -> None:
        self.syncer = Syncer(identity(), self.store, self.link, SimulatedClock(NOW))
        self._tell()

    def _tell(self) -> None:
        self.syncer.tell(Observed(generation=self.phase), {})

    async def note(self, count: int) -> None:
        for _ in range(count):
            self.noted += 1
            self.syncer.note("test.happened", str(self.noted))
        self._tell()

    async def change(self) -> None:
        self.phase += 1
        self._tell()

    async def exchange(self, fate: str) -> None:
        self.fate = fate
        try:
            await self.syncer.exchange(0.0)
        except Unavailable:
            assert fate != "arrives"

    async def deliver_late(self, index: int) -> None:
        if self.on_the_way:
            at, reports = self.on_the_way[index % len(self.on_the_way)]
            self.ways[at].take(reports)

    async def go_by(self, at: int) -> None:
        self.at = at

    async def forward(self, relay: int, count: int, answer_lost: bool) -> None:
        self.relays[relay].forward(count, answer_lost=answer_lost)

    async def lose_disk(self, relay: int) -> None:
        self.relays[relay].lose_disk()

    async def give_up(self, relay: int) -> None:
        self.relays[relay].give_up()

    async def reboot(self) -> None:
        self.restart()

    async def settle(self) -> None:
        """Let everything work again until nothing is left to tell."""
        for _ in range(12):
            await self.exchange("arrives")
            for relay in self.relays:
                relay.forward(1000)


some = st.sampled_from
exchanges = st.tuples(some(["exchange"]), some(["arrives", "arrives", "answer lost", "request lost", "late"]))
forwards = st.tuples(some(["forward"]), some(range(3)), some([1, 2, 100]), some([False, False, True]))
steps = st.one_of(
    st.tuples(some(["note"]), some([1, 1, 3])),
    exchanges,
    exchanges,
    forwards,
    forwards,
    st.tuples(some(["change"])),
    st.tuples(some(["deliver_late"]), some(range(4))),
    st.tuples(some(["go_by"]), some(range(3))),
    st.one_of(
        st.tuples(some(["lose_disk"]), some(range(3))),
        st.tuples(some(["give_up"]), some(range(3))),
        st.tuples(some(["reboot"])),
    ),
)


@pytest.mark.rule("SYNC-3")
@pytest.mark.rule("SYNC-4")
@pytest.mark.rule("SYNC-6")
@settings(max_examples=150)
@given(st.lists(steps, min_size=20, max_size=50), some(range(3)))
def test_whichever_way_reports_go_and_whatever_relays_lose_the_hub_hears_each_event_once_and_in_order(
    script: list[tuple[Any, ...]], last: int
) -> None:
    async def scenario() -> None:
        world = World()
        for name, *arguments in script:
            await getattr(world, name)(*arguments)
            assert world.hub.events == list(range(1, len(world.hub.events) + 1))
        await world.go_by(last)
        await world.settle()
        assert world.hub.events == list(range(1, world.noted + 1))
        assert world.hub.observed == Observed(generation=world.phase)
        assert world.store.reports(1) == [], "acknowledged, and kept"
        assert world.hub.dropped == 0

    asyncio.run(scenario())


def made(store: MemoryAgentStore | None = None) -> Outbox:
    return Outbox(identity(), store or MemoryAgentStore())


def note(outbox: Outbox, *numbers: int) -> None:
    for number in numbers:
        outbox.note(Event(at=NOW, kind="test.happened", message=str(number)))
        outbox.flush(sent_at=NOW, clock=NOW)


def collect(outbox: Outbox) -> tuple[list[JsonEnvelope], int | None]:
    return outbox.collect(sent_at=NOW, clock=NOW, generation=1, observed=None, facts=None)


def exchange(outbox: Outbox, way: Hub | Way) -> list[Report]:
    """Hand up what there is, and take the answer."""
    reports = [report_of(envelope) for envelope in collect(outbox)[0]]
    answer = way.take(reports)
    outbox.acknowledge(answer.acknowledged, newest=answer.newest, held=answer.held, keeper=answer.keeper)
    outbox.entrust(answer.keeper, answer.held, again=answer.tell_all)
    return reports


def told(reports: list[Report]) -> list[int]:
    return [int(event.message) for report in reports for event in report.events]


@pytest.mark.rule("SYNC-6")
def test_what_a_relay_holds_is_not_sent_again_to_it_and_kept_until_the_hub_acknowledges_it() -> None:
    store, hub = MemoryAgentStore(), Hub()
    outbox, relay = made(store), Way("relay", hub)
    note(outbox, 1, 2)
    assert told(exchange(outbox, relay)) == [1, 2]
    note(outbox, 3)
    assert told(exchange(outbox, relay)) == [3]
    assert told(exchange(outbox, relay)) == []
    assert len(store.reports(9)) == 2
    assert exchange(outbox, relay)[-1].after == store.reports(9)[-1].sequence
    relay.forward(9)
    assert told(exchange(outbox, relay)) == []
    assert store.reports(9) == []


async def test_how_things_stand_is_told_once_to_a_relay_and_again_to_another() -> None:
    world = World()
    for at in (0, 0, 0, 1, 1):
        await world.go_by(at)
        await world.exchange("arrives")
        await world.exchange("arrives")
    said = [reports[-1].observed is not None for reports in world.link.reports]
    assert said == [True] + 5 * [False] + [False, True] + 2 * [False]
    for relay in world.relays:
        relay.forward(9)
    await world.exchange("arrives")
    await world.exchange("arrives")
    after = [reports[-1].after for reports in world.link.reports]
    assert after[-3] > 0
    assert after[-1] == 0, "a hub that is restored from before does not miss what it had acknowledged"


def test_a_relay_that_lost_its_disk_takes_nothing_before_it_has_all_of_it_again() -> None:
    hub = Hub()
    outbox, relay = made(), Way("relay", hub)
    note(outbox, 1)
    exchange(outbox, relay)
    relay.lose_disk()
    note(outbox, 2)
    assert told(exchange(outbox, relay)) == [2]
    assert relay.queue == [], "it misses what comes before"
    assert told(exchange(outbox, relay)) == [1, 2]
    relay.forward(9)
    assert hub.events == [1, 2]


def test_a_full_queue_parts_first_with_what_a_relay_holds_and_counts_it_only_if_that_is_lost() -> None:
    store, hub = MemoryAgentStore(), Hub()
    outbox, relay, other = made(store), Way("relay", hub), Way("other", hub)
    for number in range(1, MAX_QUEUED + 1):
        note(outbox, number)
        exchange(outbox, relay)
    for number in range(MAX_QUEUED + 1, MAX_QUEUED + 6):
        note(outbox, number)
        exchange(outbox, relay)
    assert len(store.reports(2 * MAX_QUEUED)) == MAX_QUEUED
    assert relay.queue[-1].dropped_events == 0, "nothing is lost as yet"
    outbox = made(store)  # it remembers over a restart what it parted with
    exchange(outbox, other)
    while told(exchange(outbox, other)):
        other.forward(1000)
    exchange(outbox, other)
    assert outbox.flush(sent_at=NOW, clock=NOW)
    exchange(outbox, other)
    other.forward(1000)
    assert hub.events == list(range(6, MAX_QUEUED + 6))
    assert hub.dropped == 5
    relay.forward(10_000)
    assert hub.events == list(range(6, MAX_QUEUED + 6))


def test_what_was_parted_with_and_arrives_is_not_counted() -> None:
    store, hub = MemoryAgentStore(), Hub()
    outbox, relay = made(store), Way("relay", hub)
    for number in range(1, MAX_QUEUED + 4):
        note(outbox, number)
        exchange(outbox, relay)
    relay.forward(10_000)
    exchange(outbox, relay)
    exchange(outbox, Way("other", hub))
    note(outbox, MAX_QUEUED + 4)
    exchange(outbox, hub)
    assert hub.events == list(range(1, MAX_QUEUED + 5))
    assert hub.dropped == 0


@pytest.mark.rule("SYNC-4")
def test_a_new_database_behind_a_relay_that_knows_little_loses_nothing_when_the_hub_knows_more() -> None:
    hub = Hub()
    hub.sequence = 1 << 52
    outbox, relay = made(), Way("relay", hub)
    for stale in (0, 1):
        relay.acknowledged = stale
        note(outbox, 2 * stale + 1, 2 * stale + 2)
        exchange(outbox, relay)
    relay.forward(9)
    assert hub.events == []
    for _ in range(3):
        exchange(outbox, relay)
        relay.forward(9)
    assert hub.events == [1, 2, 3, 4]
