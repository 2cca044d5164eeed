"""What relays hand up to the hub and are handed: each host as if it had come itself, nothing to whom it is not for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.hub.restoring import begin_restored
from skerry.kit.errors import Denied, Unauthenticated
from skerry.spec.backup import RestoreMark
from skerry.spec.carrying import MAX_DESIRED, Carried, CarryAnswer, HostAnswer
from skerry.spec.relay import RelayView
from skerry.spec.report import Event, Observed
from skerry.spec.telemetry import METRICS_TYPE, MetricBatch
from skerry.testing.clock import settle
from skerry.testing.waiting import eventually
from skerry.trust.desired import verify_desired
from skerry.trust.envelope import sign_document
from skerry.trust.timekeeping import verify_time
from tests.unit.carry_world import Gateway, answer_to, carried
from tests.unit.test_hub_backend import LONG_S, Harbour, Member

pytestmark = pytest.mark.trust


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


async def gateway(harbour: Harbour, name: str = "gate", *upstreams: str) -> Gateway:
    made = Gateway(harbour, name, *upstreams)
    await made.enroll()
    return made


async def wait(harbour: Harbour, gate: Gateway, *hosts: Carried, **changes: Any) -> asyncio.Task[CarryAnswer]:
    """Return a request that waits at the hub for news."""
    number = gate.sequence + 1
    task = asyncio.create_task(gate.carry(*hosts, wait_s=LONG_S, **changes))

    async def waits() -> bool:
        known = harbour.backend.relays.get(gate.name)
        return task.done() or (known is not None and known.waiting == 1 and gate.sequence == number)

    await eventually(waits)
    await settle()
    assert not task.done()
    return task


def happened(harbour: Harbour, kind: str) -> tuple[Event, ...]:
    return (Event(at=harbour.clock.now(), kind=kind),)


def kinds(harbour: Harbour) -> list[str]:
    return [record.event.kind for record in reversed(harbour.store.events(limit=1000))]


async def quarantine(harbour: Harbour, host: Member, first: int) -> None:
    """Let two machines report as one host, by the hub's own door."""
    for number, session, heard in (
        (first, "aaaaaaaa-1", ""),
        (first + 1, "bbbbbbbb-2", ""),
        (first + 2, "aaaaaaaa-1", f"bbbbbbbb-2.{first + 1}"),
    ):
        await harbour.sync(host.signed(number, session=session, heard=heard))
    last = host.signed(first + 3, session="bbbbbbbb-2", heard=f"aaaaaaaa-1.{first + 2}")
    with pytest.raises(Denied, match="quarantine"):
        await harbour.sync(last)


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("RELAY-2")
@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(1, 6), st.sampled_from(["direct", "first", "second", "both"])
        ),
        max_size=6,
    )
)
def test_whatever_way_reports_come_and_however_often_each_is_applied_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, deliveries: list[tuple[int, int, str]]
) -> None:
    harbour = Harbour(tmp_path_factory.mktemp("hub"))

    async def deliver() -> None:
        first, second = await gateway(harbour, "first"), await gateway(harbour, "second")
        edge = await harbour.join()
        told = [edge.signed(n + 1, events=happened(harbour, f"test.{n}")) for n in range(6)]
        upto = 0
        for begin, count, way in (*deliveries, (0, 6, "both")):
            begin = min(begin, upto)  # who carries reports keeps a host's order
            reports = tuple(told[begin : begin + count])
            upto = max(upto, begin + len(reports))
            item = Carried(key=edge.key.key_id, reports=reports)
            gates = {"first": [first], "second": [second], "both": [first, second]}.get(way, [])
            if not gates:
                assert (await harbour.sync(*reports)).acknowledged == upto
            for answer in await asyncio.gather(*(gate.carry(item) for gate in gates)):
                assert answer_to(answer, edge).acknowledged == upto
        assert kinds(harbour) == [f"test.{n}" for n in range(6)]

    asyncio.run(deliver())
    harbour.store.close()


async def test_what_is_wrong_with_one_host_is_said_to_it_and_matters_to_no_other(harbour: Harbour) -> None:
    gate = await gateway(harbour)
    edge, forger, banned = await harbour.join(), await harbour.join("forger"), await harbour.join("banned")
    gone, stranger = await harbour.join("gone"), Member(harbour.clock, "stranger")
    await quarantine(harbour, banned, 10)
    harbour.store.remove_host("gone", harbour.audit())
    forged = carried(forger, reports=(forger.signed(3), edge.signed(4)))
    answer = await gate.carry(
        carried(stranger, 2),
        forged,
        carried(banned, 20),
        carried(gone, 2),
        carried(edge, 2, 3),
        carried(edge, 4),
    )
    problems = {one.key: one.problem for one in answer.hosts}
    assert problems == {
        stranger.key.key_id: "host.unknown",
        forger.key.key_id: "envelope.bad_signature",
        banned.key.key_id: "host.quarantined",
        gone.key.key_id: "host.unknown",
        edge.key.key_id: "",
    }
    assert answer_to(answer, edge).acknowledged == 4
    assert "quarantine" in answer_to(answer, banned).detail
    assert [harbour.sequence(host) for host in (forger, banned)] == [0, 12]


async def test_a_report_that_is_missing_is_asked_for_and_nothing_after_it_is_taken(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    answer = answer_to(
        await gate.carry(carried(edge, reports=(edge.signed(5), edge.signed(9, after=7)))), edge
    )
    assert (answer.acknowledged, answer.tell_all) == (5, True)
    assert harbour.sequence(edge) == 5


async def test_a_report_that_lay_in_a_relay_counts_as_of_when_the_relay_took_it(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    begun = harbour.clock.now()
    envelope = edge.signed(5)
    harbour.clock.advance(86400.0)
    answer = answer_to(await gate.carry(carried(edge, reports=(envelope,), age_s=86400.0)), edge)
    assert answer.time is None, "its clock was right when it said so"
    host = harbour.store.host("edge")
    assert host is not None
    assert (host.last_seen_at, host.clock_offset_s) == (begun, 0.0)


async def test_a_host_whose_clock_is_off_is_told_the_time_of_its_own_report(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    wrong = harbour.clock.now() - timedelta(days=20000)
    envelope = edge.signed(5, sent_at=wrong, clock=wrong)
    answer = answer_to(await gate.carry(carried(edge, reports=(envelope,)), wait_s=LONG_S), edge)
    assert answer.time is not None
    keys = [harbour.hub.keys.key.verifier]
    learnt = verify_time(answer.time, list(keys), host="edge", sequence=5, system=wrong)
    assert learnt.floor == harbour.clock.now()
    absurd = await gate.carry(carried(edge, 6, age_s=1e300))
    assert answer_to(absurd, edge).acknowledged == 6


async def test_a_relay_whose_clock_is_off_is_told_the_time_of_its_own_report(harbour: Harbour) -> None:
    gate = await gateway(harbour)
    wrong = harbour.clock.now() - timedelta(days=20000)
    answer = await gate.carry(relay=gate.next(sent_at=wrong, clock=wrong), wait_s=LONG_S)
    assert answer.time is not None
    keys = [harbour.hub.keys.key.verifier]
    verify_time(answer.time, list(keys), host="relay:gate", sequence=gate.sequence, system=wrong)
    record = harbour.store.relay("gate")
    assert record is not None
    assert record.clock_offset_s == -20000 * 86400.0


async def test_a_repeated_report_gets_its_number_and_neither_token_nor_time(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    first = answer_to(await gate.carry(carried(edge, 5, want_token=True)), edge)
    assert harbour.backend.check_blob_token(first.blob_token) == "edge"
    again = await gate.carry(carried(edge, 5, want_token=True))
    assert answer_to(again, edge) == HostAnswer(key=edge.key.key_id, acknowledged=5)
    bare = await gate.carry(Carried(key=edge.key.key_id, want_token=True))
    assert not answer_to(bare, edge).blob_token, "nothing proves that the host asks"


async def test_what_was_measured_is_taken_with_the_report_it_came_with(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    batch = MetricBatch(host="edge", site="harbour", sequence=5, windows=())
    metrics = sign_document(batch, METRICS_TYPE, edge.key)
    assert answer_to(await gate.carry(carried(edge, 5, metrics=metrics)), edge).metrics == 5
    other = answer_to(await gate.carry(carried(edge, 6, metrics=metrics)), edge)
    assert (other.acknowledged, other.metrics) == (6, 0), "what is wrong with it holds no report back"


async def test_hosts_that_wait_at_a_relay_are_there(harbour: Harbour) -> None:
    gate = await gateway(harbour)
    edge, late, banned = await harbour.join(), await harbour.join("late"), await harbour.join("banned")
    await quarantine(harbour, banned, 10)
    there: list[str] = []
    harbour.backend.carrying.on_present = lambda host, at: there.append(host)
    await gate.carry(
        Carried(key=edge.key.key_id, there=True), Carried(key=banned.key.key_id, there=True),
        carried(late, 5, age_s=3600.0),
    )  # fmt: skip
    assert there == ["edge"]
    await gate.carry(carried(late, 6, there=True))
    assert there == ["edge", "late"]


# ── what is handed down ──────────────────────────────────────────────────────────────────────────────────


async def test_a_relay_is_handed_the_newer_states_of_sites_behind_it_and_of_no_other(
    harbour: Harbour,
) -> None:
    gate, other = await gateway(harbour), await gateway(harbour, "other")
    edge = await harbour.join()
    await harbour.join("plane", "airport")
    asked = {"harbour": 0, "airport": 0, "nowhere": 0}
    assert (await gate.carry(held=asked)).desired == (), "nobody has come by it"
    answer = await gate.carry(carried(edge, 5), held=asked)
    keys = [harbour.hub.keys.key.verifier]
    desired = [
        verify_desired(envelope, keys, site="harbour", held_generation=0, now=harbour.clock.now())
        for envelope in answer.desired
    ]
    assert [one.site for one in desired] == ["harbour"]
    assert (await gate.carry(held={"harbour": desired[0].generation})).desired == ()
    assert (await gate.carry()).desired == (), "what is not asked for is not answered"
    assert (await other.carry(held=asked)).desired == ()
    assert (await other.carry(states={"gate": 0, "other": 0})).states != ()
    assert len((await other.carry(states={"gate": 0, "nobody": 0})).states) == 0


async def test_a_relay_is_handed_the_states_of_relays_below_it(harbour: Harbour) -> None:
    gate, cell = await gateway(harbour), await gateway(harbour, "cell")
    assert (await gate.carry(states={"cell": 0})).states == ()
    answer = await gate.carry(below=(cell.next(),), states={"cell": 0, "gate": gate.generation})
    cell.generation = 0
    assert [cell.take(envelope).relay for envelope in answer.states] == ["cell"]


async def test_more_than_fits_into_an_answer_comes_with_the_next(harbour: Harbour) -> None:
    gate = await gateway(harbour)
    names = [f"site-{number}" for number in range(MAX_DESIRED + 5)]
    items: list[Carried] = []
    for name in names:
        harbour.change(name)
        items.append(carried(await harbour.join(f"host-{name}", name), 5))
    held = dict.fromkeys(names, 0)
    first = await gate.carry(*items, held=held)
    assert (len(first.desired), first.more) == (MAX_DESIRED, True)
    rest = await gate.carry(held=dict.fromkeys(names[MAX_DESIRED:], 0))
    assert (len(rest.desired), rest.more) == (5, False)


async def test_a_restored_hub_hands_a_site_down_only_when_a_host_has_told_what_it_holds(
    harbour: Harbour,
) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    await gate.carry(carried(edge, 5))
    now = harbour.clock.now()
    mark = RestoreMark(restored_at=now, made_at=now, base=int(now.timestamp()))
    begin_restored(harbour.store, mark, revoke_tokens=False)
    fresh = type(harbour.hub.issuer)(harbour.store, harbour.hub.keys.key, harbour.clock, harbour.notifier)
    harbour.hub.issuer.recovering = fresh.recovering
    harbour.clock.advance(1.0)
    harbour.change("harbour", greeting="hello")
    await harbour.hub.issuer.issue("harbour")
    assert (await gate.carry(held={"harbour": 1})).desired == ()
    silent = await gate.carry(carried(edge, 6))
    assert answer_to(silent, edge).tell_all
    told = carried(edge, reports=(edge.signed(7, observed=Observed(generation=1), generation=1),))
    assert len((await gate.carry(told, held={"harbour": 1})).desired) == 1
    lost = (await harbour.hub.issuer.issued("harbour")).generation - 5
    assert (await gate.carry(held={"harbour": lost})).desired == (), (
        "the relay is ahead: a host has to say so"
    )


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_waiting_relay_is_told_of_each_change_that_is_for_it(harbour: Harbour) -> None:
    gate, cell = await gateway(harbour), await gateway(harbour, "cell")
    edge = await harbour.join()
    await gate.carry(carried(edge, 5), below=(cell.next(),))
    for one in (gate, cell):
        await one.fresh_state()
    held = (await harbour.hub.issuer.issued("harbour")).generation
    asked: dict[str, Any] = {
        "held": {"harbour": held},
        "states": {"gate": gate.generation, "cell": cell.generation},
    }
    task = await wait(harbour, gate, **asked)
    harbour.change("harbour", greeting="hello")
    await harbour.hub.issuer.issue("harbour")
    assert len((await task).desired) == 1
    task = await wait(harbour, gate, held={"harbour": held + 1}, states=asked["states"])
    cell.tls_key = ""
    await harbour.join("second")
    await harbour.backend.relays.issuing.issue_marked()
    answer = await task
    assert answer.states or answer.desired
    task = await wait(harbour, gate)
    harbour.notifier.close()
    assert await task == CarryAnswer(acknowledged=gate.sequence)


async def test_a_waiting_relay_hears_of_a_quarantine_and_of_its_end(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    await gate.carry(carried(edge, 5))
    await harbour.sync(edge.signed(6, session="aaaaaaaa-1"))
    await gate.carry()
    task = await wait(harbour, gate)
    await harbour.sync(edge.signed(7, session="bbbbbbbb-2"))
    assert answer_to(await task, edge).newest == "bbbbbbbb-2.7", "two machines are soon found out"
    await harbour.sync(edge.signed(8, session="aaaaaaaa-1", heard="bbbbbbbb-2.7"))
    await gate.carry()
    task = await wait(harbour, gate)
    with pytest.raises(Denied, match="quarantine"):
        await harbour.sync(edge.signed(9, session="bbbbbbbb-2", heard="aaaaaaaa-1.8"))
    assert answer_to(await task, edge).problem == "host.quarantined"
    task = await wait(harbour, gate)
    await harbour.backend.readmit("edge", harbour.audit())
    assert answer_to(await task, edge).problem == ""


async def test_a_host_that_is_passed_on_waits_as_at_the_hub_itself(harbour: Harbour) -> None:
    gate, edge = await gateway(harbour), await harbour.join()
    held = (await harbour.hub.issuer.issued("harbour")).generation
    task = await wait(harbour, gate, carried(edge, 5), held={"harbour": held})
    harbour.store.remove_host("edge", harbour.audit())
    harbour.backend.forget_host("edge")
    assert answer_to(await task, edge).problem == "host.unknown"


async def test_a_relay_that_is_removed_while_it_waits_is_refused(harbour: Harbour) -> None:
    gate = await gateway(harbour)
    task = await wait(harbour, gate)
    harbour.store.remove_relay("gate", harbour.audit())
    harbour.backend.relays.forget("gate")
    with pytest.raises(Unauthenticated):
        await task


async def test_a_relay_waits_no_longer_than_it_asked(harbour: Harbour) -> None:
    gate = await gateway(harbour)
    answer = await gate.carry(wait_s=0.01, held={"harbour": 0}, view=RelayView())
    assert answer == CarryAnswer(acknowledged=gate.sequence)
