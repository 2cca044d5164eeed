"""What every HubStore keeps: a report is applied once, and a host's sequence never falls."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from skerry.adapters.sql.store import SqlHubStore
from skerry.kit.errors import Missing
from skerry.ports.hub_store import AppliedReport, HubStore
from skerry.spec.facts import Fact
from tests.contract.hub_records import audit, observed, populate, report

HOSTS: tuple[str, ...] = ("cam-1", "cam-2")


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened, sites=("berlin", "paris"), hosts=HOSTS)
    yield opened
    opened.close()


def told(store: HubStore, host: str) -> list[str]:
    """Return the messages of a host's events, oldest first."""
    return [record.event.message for record in reversed(store.events(host=host, limit=100_000))]


def test_a_report_changes_what_is_known_of_its_host(store: HubStore) -> None:
    sent = msgspec.structs.replace(report(5), facts={"arch": Fact(value="arm64", source="uname")})
    assert store.apply_reports([sent]) == 5
    host = store.host("cam-1")
    assert host is not None
    assert (host.sequence, host.generation_held, host.clock_offset_s) == (5, 5, 1.25)
    assert (host.last_seen_at, host.observed_at) == (sent.seen_at, sent.sent_at)
    assert (host.observed, host.facts) == (sent.observed, sent.facts)
    (stored,) = store.events()
    assert (stored.host, stored.site, stored.received_at) == ("cam-1", "berlin", sent.seen_at)
    assert stored.event == sent.events[0]


def test_a_sign_of_life_leaves_what_was_observed(store: HubStore) -> None:
    store.apply_reports([msgspec.structs.replace(report(2), facts={"os": Fact(value="linux", source="x")})])
    before = store.host("cam-1")
    store.apply_reports([report(3, full=False)])
    after = store.host("cam-1")
    assert before is not None
    assert after is not None
    assert (after.observed, after.observed_at, after.facts) == (
        before.observed,
        before.observed_at,
        before.facts,
    )
    assert after.last_seen_at != before.last_seen_at
    assert after.sequence == 3


@pytest.mark.rule("SYNC-3")
def test_a_report_that_comes_again_changes_nothing(store: HubStore) -> None:
    store.apply_reports([report(2), report(3)])
    before = store.host("cam-1")
    changed = msgspec.structs.replace(
        report(3), observed=observed(99), facts={"x": Fact(value=1, source="y")}
    )
    for late in ([report(2)], [report(3)], [changed], [report(2), report(3)], [report(1)]):
        assert store.apply_reports(late) == 3
    assert store.host("cam-1") == before
    assert told(store, "cam-1") == ["2", "3"]


@pytest.mark.rule("SYNC-3")
def test_of_reports_that_overlap_only_the_new_ones_are_applied(store: HubStore) -> None:
    store.apply_reports([report(n) for n in (2, 3, 4)])
    assert store.apply_reports([report(n) for n in (3, 4, 5, 6)]) == 6
    assert told(store, "cam-1") == ["2", "3", "4", "5", "6"]


@pytest.mark.rule("SYNC-3")
def test_reports_that_many_deliver_at_a_time_are_applied_once(store: HubStore) -> None:
    def deliver(first: int) -> list[int]:
        return [
            store.apply_reports([report(n) for n in range(first, first + 3)]) for first in range(first, 40)
        ]

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(deliver, [2] * 8):
            assert answers == sorted(answers), "the sequence fell"
    assert told(store, "cam-1") == [str(n) for n in range(2, 42)]
    assert told(store, "cam-2") == []


def test_reports_of_an_unknown_host_are_missing_and_leave_no_event(store: HubStore) -> None:
    with pytest.raises(Missing):
        store.apply_reports([report(2, host="stranger"), report(3, host="stranger")])
    store.remove_host("cam-2", audit())
    with pytest.raises(Missing):
        store.apply_reports([report(2, host="cam-2")])
    assert store.events() == []


def test_events_are_found_by_site_and_host_newest_first_and_trimmed_at_the_old_end(store: HubStore) -> None:
    for sequence in (2, 3, 4):
        store.apply_reports([report(sequence)])
        store.apply_reports([report(sequence, host="cam-2")])
    assert [record.event.message for record in store.events(host="cam-2")] == ["4", "3", "2"]
    assert [record.host for record in store.events(site="berlin", limit=2)] == ["cam-2", "cam-1"]
    assert store.events(site="paris") == []
    assert store.events(site="paris", host="cam-1") == []
    store.trim(keep_events=1, keep_audits=1)
    assert [(record.host, record.event.message) for record in store.events()] == [("cam-2", "4")]
    store.remove_host("cam-2", audit())
    assert len(store.events()) == 1, "what happened stays told after its host has gone"


class Deliveries(RuleBasedStateMachine):
    """Any reports, in any order, any number of times, against a model of one number per host."""

    def __init__(self) -> None:
        super().__init__()
        self.store = SqlHubStore.open(None)
        self.sequences: dict[str, int] = dict.fromkeys(HOSTS, 1)
        self.applied: dict[str, list[str]] = {host: [] for host in HOSTS}
        self.seen: dict[str, int | None] = dict.fromkeys(HOSTS)

    @initialize()
    def enrol(self) -> None:
        populate(self.store, hosts=HOSTS)

    @rule(
        host=st.sampled_from(HOSTS),
        sequences=st.lists(st.integers(1, 25), min_size=1, max_size=5),
        full=st.booleans(),
    )
    def deliver(self, host: str, sequences: list[int], full: bool) -> None:
        self._expect(host, [report(sequence, host=host, full=full) for sequence in sequences])

    @rule(host=st.sampled_from(HOSTS), count=st.integers(1, 3), full=st.booleans())
    def deliver_next(self, host: str, count: int, full: bool) -> None:
        first = self.sequences[host] + 1
        self._expect(host, [report(first + number, host=host, full=full) for number in range(count)])

    @invariant()
    def each_report_was_applied_at_most_once(self) -> None:
        for host in HOSTS:
            messages = told(self.store, host)
            assert len(set(messages)) == len(messages)
            assert messages == self.applied[host]

    @invariant()
    def the_sequence_and_what_was_observed_are_those_of_the_newest(self) -> None:
        for stored in self.store.hosts():
            assert stored.sequence == self.sequences[stored.name]
            assert (stored.observed.generation if stored.observed else None) == self.seen[stored.name]

    def teardown(self) -> None:
        self.store.close()

    def _expect(self, host: str, reports: list[AppliedReport]) -> None:
        for sent in reports:
            if sent.sequence > self.sequences[host]:
                self.sequences[host] = sent.sequence
                self.applied[host] += [event.message for event in sent.events]
                self.seen[host] = sent.observed.generation if sent.observed else self.seen[host]
        assert self.store.apply_reports(reports) == self.sequences[host]


Deliveries.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestDeliveries = pytest.mark.rule("SYNC-3")(Deliveries.TestCase)
