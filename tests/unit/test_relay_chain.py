"""A relay below a relay: the same for hosts, and nothing is lost or doubled between the two."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from skerry.kit.errors import Unavailable
from skerry.ports.carrier_backend import CarrierBackend
from skerry.relay.identity import load_identity
from skerry.relay.wiring import assemble
from skerry.spec.carrier import DeltaAnswer, DeltaRequest
from skerry.spec.carrying import CarryRequest
from skerry.testing.backend_link import BackendLink
from skerry.testing.clock import SimulatedClock, settle
from skerry.testing.faults import FaultPlan, PowerCut, When
from skerry.testing.memory_relay import FaultyRelayStore, MemoryRelayStore
from skerry.testing.waiting import eventually
from tests.unit.relay_world import Host, Segment, World

pytestmark = pytest.mark.delivery


class Chain(World):
    """The hub, relay l4 below it, and relay l3 below that with host edge."""

    l4: Segment
    l3: Segment
    edge: Host

    async def build(self) -> None:
        """Let all join and know each other."""
        self.l4 = await self.add_relay("l4")
        await self.l4.poll()
        self.l3 = await self.add_relay("l3", self.l4)
        await self.settle()
        self.edge = await self.join("edge", self.l3)
        await self.settle()

    async def carry_up(self) -> None:
        """Let what waits go up level by level, and the answers come down."""
        for _ in range(2):
            await self.l3.hand_up()
            await self.l4.hand_up()
            await self.l3.poll()


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    made = Chain(tmp_path)
    await made.build()
    yield made
    await made.close()


async def test_the_hub_learns_who_stands_behind_whom_and_both_hold_the_sites_state(chain: Chain) -> None:
    for relay in (chain.l4, chain.l3):
        state = relay.process.holdings.state
        assert state is not None
        assert list(state.sites) == ["harbour"]
        assert relay.process.holdings.desired == {"harbour": 1}
    assert chain.l4.process.standing.view().relays.keys() == {"l3"}
    assert chain.l4.process.standing.view().hosts == {}
    assert chain.l3.process.standing.view().hosts.keys() == {"edge"}
    assert (await chain.edge.sync()).keeper.startswith("l3/")


@pytest.mark.rule("RELAY-1")
async def test_a_report_goes_up_by_two_disks_and_its_acknowledgement_comes_down(chain: Chain) -> None:
    chain.edge.tell("one")
    answer = await chain.edge.sync()
    assert answer.held == chain.edge.sequence
    await chain.l3.hand_up()
    assert chain.l3.store.size().reports == 0, "the relay above has it on its disk"
    assert chain.l4.store.size().reports > 0
    assert chain.events("edge") == []
    assert (await chain.edge.sync()).acknowledged < answer.held - 1, "held is not acknowledged"
    await chain.l4.hand_up()
    assert chain.events("edge") == [("edge", "one")]
    await chain.l3.poll()
    await chain.edge.sync()
    assert chain.edge.kept == {}


async def test_a_newer_state_wakes_a_host_two_levels_down(chain: Chain) -> None:
    guest = chain.l3.process.guests.host(chain.edge.key)
    assert guest is not None
    waits = asyncio.create_task(chain.edge.sync(wait_s=600.0))
    await eventually(lambda: _async(guest.waiting > 0))
    chain.harbour.change("harbour", colour="blue")
    await chain.harbour.hub.issuer.issue("harbour")
    below = asyncio.create_task(chain.l3.process.upward.poll(600.0))
    await chain.l4.poll()
    await below
    assert chain.edge.read(await waits).generation == 2


async def test_a_host_two_levels_down_with_a_wrong_clock_gets_the_time_with_a_newer_state_and_not_after_it(
    chain: Chain,
) -> None:
    chain.edge.generation = 0
    wrong = chain.harbour.clock.now() - timedelta(days=400)
    asks = asyncio.create_task(chain.edge.sync(chain.edge.report(sent_at=wrong, clock=wrong)))
    await eventually(lambda: _async(chain.l3.store.size().reports > 0))
    await chain.carry_up()
    answer = await asks
    assert answer.time is not None
    assert chain.edge.read(answer).generation == 1


@pytest.mark.parametrize("days", (-1000, 1000))
async def test_a_relay_below_a_relay_whose_clock_is_off_gets_the_hubs_time_through_it(
    chain: Chain, days: int
) -> None:
    await chain.l3.end()
    wrong = SimulatedClock(chain.harbour.clock.now() + timedelta(days=days))
    chain.l3.clock = wrong
    chain.l3.begin()
    chain.l3.link.backend = chain.l4.backend
    # One that is behind knows at least that it is not before what the hub has issued.
    chain.harbour.clock.advance(3600.0)
    await chain.l3.poll()
    off = chain.l3.process.upward.now() - chain.harbour.clock.now()
    assert abs(off) < timedelta(seconds=1)
    asked = len(chain.l4.link.carries)
    await chain.l3.poll()
    assert len(chain.l4.link.carries) == asked, "and then asks no more"


async def test_a_relay_whose_clock_is_off_is_answered_also_while_the_hub_is_away(chain: Chain) -> None:
    await chain.l3.end()
    chain.l3.clock = SimulatedClock(chain.harbour.clock.now() + timedelta(days=1000))
    chain.l3.begin()
    chain.l3.link.backend = chain.l4.backend
    chain.l4.link.away = True
    await chain.l3.poll()
    chain.l4.link.away = False
    await chain.l3.poll()
    assert chain.l3.process.upward.now() - chain.harbour.clock.now() > timedelta(days=900), "not at once"
    chain.harbour.clock.advance(10.0)
    await chain.l3.poll()
    assert abs(chain.l3.process.upward.now() - chain.harbour.clock.now()) < timedelta(minutes=1)


class Silent(BackendLink):
    """A way up on which questions for deltas get no answer, as on a link that is cut and tells nobody."""

    def __init__(self, backend: CarrierBackend) -> None:
        super().__init__(backend)
        self.speaks = threading.Event()
        self.asked = threading.Event()

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        self.asked.set()
        self.speaks.wait(60)
        return super().deltas(request, token=token)


async def test_there_are_no_deltas_while_the_upstream_is_silent_and_nobody_waits_for_long(
    chain: Chain,
) -> None:
    await chain.l3.end()
    chain.l3.link = silent = Silent(chain.l4.backend)
    data, store, clock = chain.l3.data, chain.l3.store, chain.harbour.clock
    chain.l3.process = assemble(data, load_identity(data), store, silent, clock=clock)
    await chain.l3.poll()
    chain.l3.process.upward.failing = "link.unreachable"
    request = DeltaRequest(wanted=())
    try:
        async with asyncio.timeout(20.0):
            assert await chain.l3.backend.deltas("edge", request) == DeltaAnswer()
        assert silent.asked.is_set()
    finally:
        silent.speaks.set()


async def test_a_relay_asks_for_deltas_as_often_as_the_hosts_behind_it(chain: Chain) -> None:
    await chain.join("other", chain.l4, "airport")
    await chain.settle()
    hub = chain.harbour.backend
    assert [hub.hosts_behind(name) for name in ("edge", "relay:l3", "relay:l4", "relay:none")] == [1, 1, 2, 0]
    await chain.edge.sync()
    await chain.carry_up()
    assert [chain.l4.backend.hosts_behind(name) for name in ("edge", "relay:l3")] == [1, 1]


async def _async(value: bool) -> bool:
    return value


async def test_a_relay_below_waits_while_only_heartbeats_are_acknowledged(chain: Chain) -> None:
    below = asyncio.create_task(chain.l3.process.upward.poll(600.0))
    await chain.edge.sync()
    await chain.l3.hand_up()
    await chain.l4.hand_up()
    await settle()
    assert not below.done()
    chain.edge.tell("one")
    await chain.edge.sync()
    await chain.l3.hand_up()
    await chain.l4.hand_up()
    answer = await below
    assert [one.key for one in answer.hosts] == [chain.edge.key]


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
async def test_a_relay_in_the_middle_that_loses_its_disk_is_found_out_and_told_again(chain: Chain) -> None:
    chain.edge.tell("one")
    await chain.edge.sync()
    await chain.l3.hand_up()  # it is on the disk of l4 alone now, but for the host's
    await chain.l4.end()
    chain.l4.store = MemoryRelayStore()
    chain.l4.begin()
    chain.l3.link.backend = chain.l3.above = chain.l4.backend
    await chain.l4.poll()
    chain.edge.tell("two")
    for _ in range(3):
        await chain.edge.sync()
        await chain.carry_up()
    await chain.edge.sync()
    assert chain.events("edge") == [("edge", "one"), ("edge", "two")]
    assert chain.edge.kept == {}


@pytest.mark.rule("RELAY-1")
@pytest.mark.rule("RELAY-2")
@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("step", range(1, 7))
async def test_a_relay_in_the_middle_is_killed_at_any_step(chain: Chain, step: int, when: When) -> None:
    disk, plan, told = chain.l4.store, FaultPlan(), list[str]()
    await chain.l4.end()
    chain.l4.store = FaultyRelayStore(disk, plan)
    chain.l4.begin()
    chain.l3.link.backend = chain.l4.backend
    await chain.l4.poll()
    plan.kill(nth=step, when=when)
    try:
        for kind in ("one", "two"):
            chain.edge.tell(kind)
            told.append(kind)
            await chain.edge.sync()
            await chain.carry_up()
    except (PowerCut, asyncio.CancelledError, Unavailable):
        pass
    await chain.l4.end()
    plan.restore_power()
    chain.l4.store = disk
    chain.l4.begin()
    chain.l3.link.backend = chain.l4.backend
    await chain.l4.poll()
    chain.edge.tell("last")
    for _ in range(3):
        await chain.edge.sync()
        await chain.carry_up()
    await chain.edge.sync()
    assert [kind for _, kind in chain.events("edge")] == [*told, "last"]
    assert chain.edge.kept == {}


async def test_a_relay_above_with_a_full_queue_is_no_reason_to_let_go(chain: Chain) -> None:
    chain.l4.process.queue.limit_bytes = 100
    chain.edge.tell("one")
    await chain.edge.sync()
    for _ in range(8):
        with pytest.raises(Unavailable) as caught:
            await chain.l3.process.upward.hand_up()
        assert caught.value.code == "relay.not_taken"
    assert chain.l3.store.size().reports > 0
    chain.l4.process.queue.limit_bytes = 1 << 20
    await chain.carry_up()
    assert chain.events("edge") == [("edge", "one")]


async def test_a_relay_that_is_not_known_is_answered_by_the_hub_itself(chain: Chain) -> None:
    chain.relays.append(l2 := Segment(chain.harbour, chain.folder, "l2", chain.l4.backend, "l4"))
    await l2.enroll()
    await l2.poll()
    assert l2.process.holdings.state is not None
    assert l2.process.upward.token(), "the hub's own, which the relay above takes"
    assert chain.l4.backend.check_blob_token(l2.process.upward.token()) == "relay:l2"


async def test_a_recording_of_a_relays_request_is_answered_with_nothing(chain: Chain) -> None:
    request, _ = chain.l3.link.carries[-1]
    again = await chain.l4.backend.carry(
        CarryRequest(relay=request.relay, held={"harbour": 0}, want_token=True, wait_s=600.0)
    )
    assert (again.desired, again.hosts, again.blob_token) == ((), (), "")
    assert again.acknowledged > 0


async def test_a_wrong_report_of_a_relay_further_below_is_left_out(chain: Chain) -> None:
    await chain.l3.poll()
    below = next(chain.l4.process.guests.relays())
    assert below.report is not None
    signature = below.report["signatures"][0]
    forged = {**below.report, "signatures": [{**signature, "sig": "AAAA" + signature["sig"][4:]}]}
    before = below.sequence
    chain.l4.process.backend._note_below(forged)
    assert below.sequence == before
