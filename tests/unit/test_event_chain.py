"""Events of hosts as a chain: what is missing, altered or told by a copy is seen by the hub, and told."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.sql.store import SqlHubStore
from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.agent.outbox import Outbox
from skerry.ports.agent_store import MAX_KEPT_EVENTS, AgentStore, KeptEvent, QueuedReport
from skerry.ports.hub_store import HubStore
from skerry.spec.report import Event, Report
from skerry.testing.faults import FaultPlan, FaultyAgentStore, PowerCut, When
from skerry.testing.memory import MemoryAgentStore
from skerry.trust.chain import ChainHead, digest_entry, follow_events, link_events
from skerry.trust.envelope import decode_document
from tests.contract.hub_records import populate, report
from tests.unit.upstream import identity

pytestmark = pytest.mark.trust

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOTHING = ChainHead()


def happened(count: int, *, first: int = 1) -> list[Event]:
    return [
        Event(at=NOW + timedelta(seconds=number), kind="test.happened", message=str(number))
        for number in range(first, first + count)
    ]


def linked(count: int) -> list[Event]:
    return link_events(NOTHING, happened(count))[0]


def kinds(head: ChainHead, events: Sequence[Event]) -> list[str]:
    return [found.kind for found in follow_events(head, events)[1]]


@given(st.integers(0, 9), st.integers(0, 9))
def test_what_is_told_in_parts_follows_on_itself(first: int, second: int) -> None:
    head, breaks = follow_events(NOTHING, linked(first + second)[:first])
    assert not breaks
    head, breaks = follow_events(head, linked(first + second)[first:])
    assert (head.number, breaks) == (first + second, ())


@pytest.mark.rule("AUDIT-4")
@given(st.integers(2, 8), st.data())
def test_an_event_that_is_missing_altered_or_told_twice_is_seen(length: int, data: st.DataObject) -> None:
    events = linked(length)
    at = data.draw(st.integers(0, length - 2))
    missing = [*events[:at], *events[at + 1 :]]
    assert kinds(NOTHING, missing) == ["chain.gap"]
    altered = [*events]
    altered[at] = msgspec.structs.replace(events[at], message="nothing of the kind")
    assert kinds(NOTHING, altered) == ["chain.altered"]
    head, _ = follow_events(NOTHING, events)
    assert "chain.forked" in kinds(head, events[at + 1 :])
    assert kinds(head, events) == ["chain.restarted"]


def test_what_the_hub_tells_of_a_host_is_of_no_chain() -> None:
    head, _ = follow_events(NOTHING, linked(2))
    assert follow_events(head, happened(3)) == (head, ())


# ── the host ────────────────────────────────────────────────────────────────────────────────────────


def tell(outbox: Outbox, *events: Event) -> None:
    for event in events:
        outbox.note(event)
    outbox.flush(sent_at=NOW, clock=NOW)


def tell_each(outbox: Outbox, events: Sequence[Event]) -> None:
    for event in events:
        tell(outbox, event)


def sent(outbox: Outbox) -> list[Report]:
    envelopes = outbox.everything(sent_at=NOW, clock=NOW, generation=0, observed=None, facts=None)
    return [decode_document(base64.b64decode(one["payload"]), Report) for one in envelopes]


def told(outbox: Outbox) -> list[Event]:
    return [event for one in sent(outbox) for event in one.events]


@pytest.mark.rule("AUDIT-4")
def test_a_host_goes_on_with_its_chain_after_a_restart_and_when_the_hub_has_everything() -> None:
    store = MemoryAgentStore()
    outbox = Outbox(identity(), store)
    tell(outbox, *happened(2))
    outbox.acknowledge(max(one.sequence for one in sent(outbox)))
    assert told(outbox) == []
    again = Outbox(identity(), store)
    tell(again, *happened(2, first=3))
    assert told(again) == linked(4)[2:]
    kept = [msgspec.json.decode(one.content, type=Event) for one in store.kept_events()]
    assert kept == linked(4), "what the hub has is kept as well"


@pytest.mark.rule("AUDIT-4")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("call", (1, 2, 3))
def test_a_power_cut_while_events_are_written_breaks_no_chain(when: When, call: int) -> None:
    store, plan = MemoryAgentStore(), FaultPlan()
    plan.kill("put_report", nth=call, when=when)
    outbox = Outbox(identity(), FaultyAgentStore(store, plan))
    with pytest.raises(PowerCut):
        tell_each(outbox, happened(3))
    outbox = Outbox(identity(), store)
    tell(outbox, *happened(2, first=7))
    events = told(outbox)
    assert follow_events(NOTHING, events) == (ChainHead(len(events), digest_entry(events[-1])), ())
    assert [event.message for event in events[-2:]] == ["7", "8"]


# ── the stores ──────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_events_are_kept(tmp_path: Path) -> None:
    real, _ = SqliteAgentStore.open(tmp_path / "agent.db")
    stores: list[AgentStore] = [real, MemoryAgentStore()]
    for store in stores:
        assert store.kept_events() == []
        rows = [KeptEvent(number, b"%d" % number) for number in range(1, MAX_KEPT_EVENTS + 4)]
        store.put_report(QueuedReport(1, b"r"), events=rows[:-1])
        store.put_report(QueuedReport(1, b"s"), events=rows[-1:])
        assert list(store.kept_events()) == rows[-MAX_KEPT_EVENTS:]
        assert list(store.kept_events(2)) == rows[-2:]
    real.close()


@pytest.fixture
def hub() -> Iterator[HubStore]:
    store = SqlHubStore.open(None)
    populate(store, hosts=("cam-1", "cam-2"))
    yield store
    store.close()


def apply(store: HubStore, sequence: int, *events: Event, host: str = "cam-1") -> None:
    made = msgspec.structs.replace(report(sequence, host=host), events=events)
    store.apply_reports([made])


@pytest.mark.rule("AUDIT-4")
def test_the_hub_tells_of_a_break_once_and_of_each_host_by_itself(hub: HubStore) -> None:
    events = linked(6)
    apply(hub, 2, *events[:2])
    apply(hub, 2, *events[:2])
    apply(hub, 3, *events[3:4])
    apply(hub, 4, *events[4:])
    apply(hub, 5, *events[:1], host="cam-2")
    found = [one.event.kind for one in hub.events(host="cam-1", limit=99) if not one.event.number]
    assert found == ["chain.gap"]
    assert not [one for one in hub.events(host="cam-2") if not one.event.number]
    (gap,) = (one.event.message for one in hub.events(limit=99) if one.event.kind == "chain.gap")
    assert gap == "events 3 to 3 of this host have not come"
