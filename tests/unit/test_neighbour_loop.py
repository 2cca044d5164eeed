"""The neighbour loop: when it listens, where, and that it follows what changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from skerry.adapters.system_clock import SystemClock
from skerry.adapters.udp_datagrams import UdpDatagrams
from skerry.agent.identity import Identity, Place
from skerry.agent.loops.neighbours import NeighbourLoop, parse_lan_address
from skerry.agent.neighbourhood import AppStatus
from skerry.carrier.hub_trust import HubTrust
from skerry.kit.errors import Rejected
from skerry.ports.neighbours import Datagrams
from skerry.spec.desired import DesiredState, Neighbour, SitePlacement
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.memory_lan import MemoryDatagrams, MemoryLan
from skerry.testing.waiting import eventually
from tests.unit.lan_world import APP, KEYS, NOW, SITE
from tests.unit.upstream import NOWHERE, SIGNED

ABLE = {APP: AppStatus(able=True)}
RUNS = {APP: AppStatus(able=True, alive=True)}


def identity(number: int) -> Identity:
    place = Place(f"edge-{number}", SITE, "https://hub.example:8443", "sha256:" + "0" * 64)
    root = SIGNED.trust_root()
    return Identity(place, KEYS[number], root, HubTrust(root.root_bytes, NOWHERE))


def desired(addresses: dict[str, str], *, takeover_s: float = 5.0, generation: int = 1) -> DesiredState:
    hosts = tuple(sorted(addresses))
    return DesiredState(
        site=SITE,
        generation=generation,
        issued_at=NOW,
        expires_at=NOW,
        hosts=dict.fromkeys(hosts, ()),
        placements={APP: SitePlacement(count=1, hosts=hosts, takeover_s=takeover_s)},
        neighbours={
            host: Neighbour(address=addresses[host], sign_key=KEYS[int(host[-1])].public) for host in hosts
        },
    )


class Site:
    """Two hosts on a network in memory, at virtual time."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.lan = MemoryLan()
        self.stores = [MemoryAgentStore(), MemoryAgentStore()]
        self.ends: list[MemoryDatagrams] = [self.lan.machine("10.0.0.1"), self.lan.machine("10.0.0.2")]
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.loops: dict[int, NeighbourLoop] = {}

    async def start(self, number: int) -> NeighbourLoop:
        loop = NeighbourLoop(identity(number), self.ends[number], self.stores[number], self.clock)
        await loop.settle()
        self.loops[number] = loop
        self.tasks[number] = asyncio.create_task(loop.run_forever())
        return loop

    def addresses(self) -> dict[str, str]:
        return {
            f"edge-{number}": str(loop.facts()["lan_address"].value) for number, loop in self.loops.items()
        }

    def introduce(self) -> DesiredState:
        """Give every host the desired state of them all, and let it be able; return that state."""
        wanted = desired(self.addresses())
        for loop in self.loops.values():
            loop.follow(wanted)
            loop.tell(ABLE)
        return wanted

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    await made.close()
    assert made.lan.listening == set()


async def test_a_host_says_where_it_can_be_reached_and_listens_only_when_it_must(site: Site) -> None:
    one, other = await site.start(0), await site.start(1)
    fact = one.facts()["lan_address"]
    assert (fact.value, fact.source) == ("10.0.0.1:40000", "route to upstream")
    await site.clock.elapse(30)
    assert (site.lan.listening, site.lan.sent) == (set(), [])
    wanted = site.introduce()
    await site.clock.elapse(5)
    assert site.lan.listening == {"10.0.0.1:40000", "10.0.0.2:40001"}
    assert (one.duties()[APP].active, other.duties()[APP].active) == (True, False)
    assert (one.views(), other.views()) == ({"edge-1": "heard"}, {"edge-0": "heard"})
    for loop in (one, other):
        loop.follow(msgspec.structs.replace(wanted, placements={}, generation=2))
    await site.clock.elapse(1)
    assert (site.lan.listening, one.duties(), one.views()) == (set(), {}, {})


async def test_a_silent_host_is_taken_over_from_and_who_decides_is_woken(site: Site) -> None:
    one, other = await site.start(0), await site.start(1)
    site.introduce()
    await site.clock.elapse(3)
    one.tell(RUNS)
    woken: list[str] = []
    other.on_change = lambda: woken.append("active" if other.duties()[APP].active else "")
    site.lan.cut.add(("10.0.0.1", "10.0.0.2"))
    site.lan.cut.add(("10.0.0.2", "10.0.0.1"))
    await site.clock.elapse(3)
    assert "active" not in woken
    await site.clock.elapse(3)
    assert (woken[-1], other.views()) == ("active", {"edge-0": "silent"})
    site.lan.cut.clear()
    await site.clock.elapse(1.5)
    assert (woken[-1], other.views()) == ("", {"edge-0": "heard"})


async def test_the_port_is_kept_over_restarts(site: Site) -> None:
    await site.start(0)
    place = site.loops[0].facts()
    await site.close()
    assert (await site.start(0)).facts() == place


async def test_an_address_that_changes_is_followed_and_learnt_without_a_hub(site: Site) -> None:
    one, other = await site.start(0), await site.start(1)
    site.introduce()
    await site.clock.elapse(3)
    site.ends[0].addresses[:] = ["10.0.0.77"]
    await site.clock.elapse(16)
    assert one.facts()["lan_address"].value == "10.0.0.77:40000"
    assert "10.0.0.77:40000" in site.lan.listening
    site.lan.sent.clear()
    await site.clock.elapse(10)
    assert ("10.0.0.2:40001", "10.0.0.77:40000") in {(source, target) for source, target, _ in site.lan.sent}
    assert (one.views(), other.views()) == ({"edge-1": "heard"}, {"edge-0": "heard"})


async def test_another_port_is_taken_when_somebody_else_has_it(site: Site) -> None:
    one = await site.start(0)
    await site.start(1)
    squatter = site.lan.machine("10.0.0.1")
    await squatter.open("10.0.0.1", 40000, lambda _: None)
    one.follow(desired(site.addresses()))
    one.tell(ABLE)
    await site.clock.elapse(1)
    assert one.facts()["lan_address"].value == "10.0.0.1:40002"
    squatter.close()


async def test_a_machine_without_an_address_waits_for_one(site: Site) -> None:
    site.ends[0].addresses[:] = []
    one = await site.start(0)
    await site.start(1)
    assert one.facts() == {}
    one.follow(desired({"edge-0": "", "edge-1": "10.0.0.2:40001"}))
    one.tell(ABLE)
    await site.clock.elapse(4)
    site.ends[0].addresses[:] = ["10.0.0.9"]
    await site.clock.elapse(4)
    assert str(one.facts()["lan_address"].value).startswith("10.0.0.9:")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    (
        ("", "", 0),
        ("192.168.1.20", "192.168.1.20", 0),
        ("192.168.1.20:7946", "192.168.1.20", 7946),
        (":7946", "", 7946),
        ("[fd00::1]:7946", "fd00::1", 7946),
        ("fd00::1", "fd00::1", 0),
        ("[fd00::1]", "fd00::1", 0),
    ),
)
def test_an_address_can_be_stated_in_whole_or_in_part(text: str, host: str, port: int) -> None:
    place = parse_lan_address(text)
    assert (place.host, place.port) == (host, port)


@pytest.mark.parametrize("text", ("edge-1", "192.168.1.20:x", "192.168.1.20:70000", "1.2.3", "[fd00::1]:-1"))
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_lan_address(text)
    assert caught.value.code == "lan.malformed"


async def test_two_hosts_agree_over_real_udp() -> None:
    clock = SystemClock()
    ends: list[Datagrams] = [UdpDatagrams(), UdpDatagrams()]
    loops = [
        NeighbourLoop(identity(number), ends[number], MemoryAgentStore(), clock, stated="127.0.0.1")
        for number in range(2)
    ]
    for loop in loops:
        await loop.settle()
    wanted = desired(
        {f"edge-{number}": str(loops[number].facts()["lan_address"].value) for number in range(2)},
        takeover_s=2.0,
    )
    tasks = [asyncio.create_task(loop.run_forever()) for loop in loops]
    for loop in loops:
        loop.follow(wanted)
        loop.tell(ABLE)

    async def first_runs() -> bool:
        return loops[0].duties()[APP].active and loops[1].views() == {"edge-0": "heard"}

    async def second_runs() -> bool:
        return loops[1].duties()[APP].active

    await eventually(first_runs, what="the first to run")
    assert not loops[1].duties()[APP].active
    tasks[0].cancel()
    await eventually(second_runs, what="the second to take over")
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
