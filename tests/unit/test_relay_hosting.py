"""A relay between hosts and their hub: what it takes and answers, with the hub there, away, and gone in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sqlite_relay_store import SqliteRelayStore
from skerry.kit.errors import Denied, Unauthenticated, Unavailable, Untrusted
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.metrics import MetricWindow
from skerry.spec.relay import RELAY_STATE_TYPE
from skerry.spec.telemetry import METRICS_TYPE, MetricBatch
from skerry.testing.clock import settle
from skerry.testing.faults import FaultPlan, PowerCut, When
from skerry.testing.memory_relay import FaultyRelayStore, MemoryRelayStore
from skerry.testing.waiting import eventually
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from tests.unit.relay_world import Host, Segment, World
from tests.unit.test_hub_backend import Member

pytestmark = pytest.mark.delivery

LONG_S = 600.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def relay(world: World) -> Segment:
    made = await world.add_relay("l3")
    await made.poll()
    return made


async def waiting(host: Host) -> asyncio.Task[SyncAnswer]:
    """Return a long-poll of a host that waits at its relay."""
    guest = host.segment.process.guests.host(host.key)
    assert guest is not None
    task = asyncio.create_task(host.sync(wait_s=LONG_S))

    async def waits() -> bool:
        return guest.waiting > 0

    await eventually(waits)
    return task


async def still_waits(task: asyncio.Task[SyncAnswer]) -> bool:
    await settle()
    return not task.done()


# ── who is known ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_host_that_is_not_known_is_answered_by_the_hub_and_by_the_relay_once_it_is(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    assert host.answer.acknowledged == 2
    assert host.generation == 1, "its state came with the hub's answer"
    assert host.answer.keeper == "", "nothing is kept of a host that is not known"
    answer = await host.sync()
    assert answer.held == 3
    assert answer.keeper.startswith("l3/")


async def test_a_host_that_is_not_known_cannot_be_answered_while_the_hub_is_away(
    world: World, relay: Segment
) -> None:
    member = await world.harbour.join("edge")
    relay.link.away = True
    with pytest.raises(Unavailable):
        await Host(member, relay).sync()


async def test_a_host_that_is_not_known_and_waits_does_not_ask_without_a_pause(
    world: World, relay: Segment
) -> None:
    await world.join("edge", relay)
    member = await world.harbour.join("other", site="airport")
    host = Host(member, relay)
    await host.sync()
    task = asyncio.create_task(host.sync(wait_s=LONG_S))
    await eventually(lambda: _async(len(relay.link.carries) > 0))
    assert await still_waits(task)
    await world.settle()  # now it is known
    assert (await task).acknowledged == 3


async def _async(value: bool) -> bool:
    return value


async def test_what_is_not_signed_by_the_host_is_refused_and_not_kept(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    good = host.report()
    signature = good["signatures"][0]
    forged = {**good, "signatures": [{**signature, "sig": signature["sig"][:-4] + "AAA="}]}
    with pytest.raises(Untrusted):
        await relay.backend.sync(SyncRequest(reports=(forged,)))
    assert relay.store.size().reports == 0


async def test_a_host_that_was_removed_is_told_so_by_its_relay(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    host.tell("last.words")
    await host.sync()
    world.harbour.store.remove_host("edge", world.harbour.audit())
    world.harbour.backend.forget_host("edge")
    await relay.hand_up()
    assert relay.store.size().reports == 0
    with pytest.raises(Unauthenticated) as caught:
        await host.sync()
    assert caught.value.code == "host.unknown"


# ── what is held, and what is acknowledged ───────────────────────────────────────────────────────────────


@pytest.mark.rule("RELAY-1")
async def test_held_is_said_at_once_and_acknowledged_only_when_the_hub_has_it(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    host.tell("one")
    answer = await host.sync()
    assert answer.acknowledged < host.sequence - 1
    assert answer.held == host.sequence
    assert world.events("edge") == []
    await relay.hand_up()
    assert world.events("edge") == [("edge", "one")]
    assert (await host.sync()).acknowledged == host.sequence - 1
    assert host.kept == {}


async def test_what_the_hub_acknowledges_wakes_a_host_only_when_it_told_something(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    quiet = await waiting(host)
    await relay.hand_up()
    assert await still_waits(quiet), "a heartbeat's acknowledgement is no news, or it would never wait"
    host.tell("one")
    await relay.backend.sync(SyncRequest(reports=(*host.kept.values(),)))
    await relay.hand_up()
    answer = await quiet
    assert answer.acknowledged == max(host.sequence, 0)


async def test_a_newer_state_ends_the_wait_and_comes_also_while_the_hub_is_away(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    task = await waiting(host)
    world.harbour.change("harbour", colour="blue")
    await world.harbour.hub.issuer.issue("harbour")
    await relay.poll()
    answer = await task
    assert host.read(answer).generation == 2
    assert answer.blob_token
    relay.link.away = True
    host.generation = 0
    assert host.read(await host.sync()).generation == 2


async def test_a_host_restarted_offline_is_answered_by_a_relay_restarted_offline(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    host.tell("before")
    await host.sync()
    await relay.end()
    relay.begin()
    relay.link.away = True
    host.generation = 0
    host.tell("after")
    answer = await host.sync(want_token=True)
    assert host.read(answer).generation == 1
    assert answer.held == host.sequence
    assert relay.backend.check_blob_token(answer.blob_token) == "edge"
    relay.link.away = False
    await relay.hand_up()
    assert world.events("edge") == [("edge", "before"), ("edge", "after")]


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
async def test_a_relay_that_loses_its_disk_is_told_everything_again(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    for kind in ("one", "two"):
        host.tell(kind)
        await host.sync()
    await relay.end()
    relay.store = MemoryRelayStore()
    relay.begin()
    await relay.poll()
    host.tell("three")
    await host.sync()
    await host.sync()
    await relay.hand_up()
    await host.sync()
    await relay.hand_up()
    assert world.events("edge") == [("edge", "one"), ("edge", "two"), ("edge", "three")]


async def test_reports_go_up_in_each_hosts_order_what_tells_something_first(
    world: World, relay: Segment
) -> None:
    first, second = await world.join("a", relay), await world.join("b", relay)
    await first.sync()
    second.tell("one")
    await second.sync()
    second.tell("two")
    await second.sync()
    relay.link.carries.clear()
    await relay.hand_up()
    request, answer = relay.link.carries[0]
    assert [carried.key for carried in request.hosts] == [second.key, first.key]
    assert len(request.hosts[0].reports) == 3, "two that tell something, and one heartbeat of three"
    assert {one.key: one.acknowledged for one in answer.hosts} == {
        first.key: first.sequence,
        second.key: second.sequence,
    }


@pytest.mark.rule("RELAY-1")
async def test_a_full_queue_takes_no_more_and_the_host_keeps_it(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    relay.process.queue.limit_bytes = 3000
    for number in range(6):
        host.tell(f"event.{number}")
        await host.sync()
    assert host.answer.held < host.sequence
    assert "full" in relay.process.standing.view().trouble
    assert relay.store.size().used_bytes <= 3000
    for _ in range(8):
        await relay.hand_up()
        await host.sync()
    assert world.events("edge") == [("edge", f"event.{number}") for number in range(6)]
    assert relay.process.standing.view().trouble == ""


async def test_a_full_disk_takes_nothing_and_hosts_are_answered(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    plan = FaultPlan()
    relay.process.queue._store = FaultyRelayStore(relay.store, plan)
    plan.fail("take", Unavailable("disk.full", "no room"))
    host.generation = 0
    host.tell("one")
    answer = await host.sync()
    assert host.read(answer).generation == 1
    assert answer.held < host.sequence - 1
    await host.sync()
    await relay.hand_up()
    assert world.events("edge") == [("edge", "one")]


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("step", range(1, 9))
async def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(
    world: World, relay: Segment, step: int, when: When
) -> None:
    host = await world.join("edge", relay)
    disk = relay.store
    plan = FaultPlan()
    await relay.end()
    relay.store = FaultyRelayStore(disk, plan)
    relay.begin()
    plan.kill(nth=step, when=when)
    told: list[str] = []
    try:
        for kind in ("one", "two", "three"):
            host.tell(kind)
            told.append(kind)
            await host.sync()
            await relay.hand_up()
    except (PowerCut, asyncio.CancelledError):
        pass
    await relay.end()
    plan.restore_power()
    relay.store = disk
    relay.begin()
    for kind in ("four", "five"):
        host.tell(kind)
        told.append(kind)
        await host.sync()
        await relay.hand_up()
    await host.sync()
    assert [event for _, event in world.events("edge")] == told, "each once, in order"
    assert host.kept == {}


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
async def test_an_answer_that_is_lost_on_the_way_down_changes_nothing(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    relay.link.plan.fail("carry", Unavailable("link.cut", "cut"), when="after")
    host.tell("one")
    await host.sync()
    with pytest.raises(Unavailable):
        await relay.hand_up()
    assert relay.store.size().reports > 0
    await relay.hand_up()
    assert relay.store.size().reports == 0
    assert world.events("edge") == [("edge", "one")]


async def test_a_gap_is_found_and_the_host_begins_again(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    host.tell("one")
    await host.sync()
    await relay.hand_up()
    host.tell("lost")
    host.held = 10_000  # it believes that all of this is held here
    host.tell("two")
    assert (await host.sync()).tell_all
    await host.sync()
    await relay.hand_up()
    assert world.events("edge") == [("edge", "one"), ("edge", "lost"), ("edge", "two")]


# ── metrics, time, tokens ────────────────────────────────────────────────────────────────────────────────


def batch(host: Host, *, key: SigningKey | None = None) -> object:
    windows: tuple[MetricWindow, ...] = ()
    made = MetricBatch(host=host.name, site=host.member.site, sequence=host.sequence, windows=windows)
    return sign_document(made, METRICS_TYPE, key or host.member.key)


async def test_metrics_are_acknowledged_when_they_are_on_disk_and_go_up_later(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    relay.link.away = True
    fresh = host.report()
    answer = await host.sync(fresh, metrics=batch(host))
    assert answer.metrics == host.sequence
    for _ in range(3):
        await host.sync()
    assert relay.store.size().metrics == 1, (
        "its heartbeat was replaced; the metrics have their report with them"
    )
    relay.link.away = False
    await relay.hand_up()
    assert (relay.store.size().metrics, relay.store.size().dropped_metrics) == (0, 0)


async def test_metrics_of_somebody_else_are_refused_and_the_report_beside_them_counts(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    fresh = host.report()
    answer = await host.sync(fresh, metrics=batch(host, key=SigningKey.generate()))
    assert (answer.metrics, answer.held) == (0, host.sequence)


async def test_a_host_with_a_wrong_clock_gets_the_hubs_time_for_its_own_report(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    late = world.harbour.clock.now() - timedelta(days=400)
    fresh = host.report(sent_at=late, clock=late)
    task = asyncio.create_task(host.sync(fresh, wait_s=LONG_S))
    await eventually(lambda: _async(relay.store.size().reports > 0))
    await relay.hand_up()
    answer = await task
    assert answer.time is not None


async def test_tokens_of_the_hub_and_of_the_relay_open_blobs_and_no_others(
    world: World, relay: Segment
) -> None:
    host = await world.join("edge", relay)
    own = (await host.sync(want_token=True)).blob_token
    hubs = (await world.harbour.sync(host.report(), want_token=True)).blob_token
    assert relay.backend.check_blob_token(own) == "edge"
    assert relay.backend.check_blob_token(hubs) == "edge"
    with pytest.raises(Denied):
        world.harbour.backend.check_blob_token(own)
    with pytest.raises(Denied):
        relay.backend.check_blob_token("nonsense")
    world.harbour.clock.jump(timedelta(hours=2))
    with pytest.raises(Denied) as caught:
        relay.backend.check_blob_token(own)
    assert caught.value.code == "blob_token.expired"


async def test_a_token_ends_with_its_hosts_place(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    token = (await host.sync(want_token=True)).blob_token
    state = relay.process.holdings.state
    assert state is not None
    relay.process.backend.follow(msgspec.structs.replace(state, sites={}))
    with pytest.raises(Denied):
        relay.backend.check_blob_token(token)


# ── who is above ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("RELAY-4")
async def test_an_upstream_cannot_take_a_site_back_or_make_up_a_state(world: World, relay: Segment) -> None:
    host = await world.join("edge", relay)
    old = (await world.harbour.hub.issuer.issued("harbour")).envelope
    await world.harbour.join("plane", "airport")
    other = (await world.harbour.hub.issuer.issued("airport")).envelope
    world.harbour.change("harbour", colour="blue")
    await world.harbour.hub.issuer.issue("harbour")
    await relay.poll()
    assert relay.process.holdings.desired == {"harbour": 2}
    assert old is not None and other is not None
    assert not await relay.process.holdings.take_desired(old)
    with pytest.raises(Untrusted) as caught:
        await relay.process.holdings.take_desired(other)
    assert caught.value.code == "desired.wrong_site"
    made_up = sign_document(
        msgspec.structs.replace(host.read(await host.sync()), generation=9),
        "application/vnd.skerry.desired-state+json",
        SigningKey.generate(),
    )
    with pytest.raises(Untrusted):
        await relay.process.holdings.take_desired(made_up)
    assert relay.process.holdings.desired == {"harbour": 2}


async def test_what_a_site_was_issued_is_forgotten_when_it_is_not_below_any_more(
    world: World, relay: Segment
) -> None:
    await world.join("edge", relay)
    assert relay.process.holdings.desired == {"harbour": 1}
    state = relay.process.holdings.state
    assert state is not None
    newer = msgspec.structs.replace(state, generation=state.generation + 1, sites={})
    envelope = sign_document(newer, RELAY_STATE_TYPE, world.harbour.hub.keys.key)
    assert await relay.process.holdings.take_state(envelope, now=world.harbour.clock.now())
    assert relay.process.holdings.desired == {}
    assert relay.store.signed("desired", "harbour") is None


def all_files(folder: Path) -> bytes:
    """Return what a relay has written."""
    files = (*folder.glob("l3/**/*"), *folder.glob("l3.db*"))
    return b"".join(file.read_bytes() for file in files if file.is_file())


@pytest.mark.rule("RELAY-6")
async def test_a_relay_keeps_nothing_secret_of_a_host_that_enrols_through_it(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    segment = Segment(world.harbour, tmp_path, "l3", world.harbour.backend)
    segment.store, _ = SqliteRelayStore.open(tmp_path / "l3.db")
    world.relays.append(segment)
    await segment.enroll()
    await segment.poll()
    secret = world.harbour.token("join_this-must-stay-nowhere")
    member = Member(world.harbour.clock, "edge", "harbour")
    await segment.backend.enroll(member.request(secret))
    host = Host(member, segment)
    await host.sync(want_token=True)
    await world.settle()
    await host.sync(want_token=True)
    await segment.process.upward.ask(segment.process.link.close)
    written = await asyncio.to_thread(all_files, tmp_path)
    assert host.key.encode() in written
    assert secret.encode() not in written
    assert host.answer.blob_token.encode() not in written
    shown = "".join(capfd.readouterr())
    assert secret not in shown
    assert host.answer.blob_token not in shown
