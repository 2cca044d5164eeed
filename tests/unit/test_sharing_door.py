"""The door of a host: when it is open, whom its neighbours hear of, and how hosts find each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.agent.loops.neighbours import NeighbourLoop
from skerry.agent.sharing import SETTLE_S, Sharing, SharingParts
from skerry.agent.sharing_door import DoorKeeper, DoorParts, parse_share
from skerry.agent.sharing_serving import Passes, Shelf
from skerry.kit.digests import digest_of
from skerry.kit.errors import Denied, Rejected
from skerry.ports.discovery import Announced
from skerry.reconcile.duty import LOOK_AGAIN_S
from skerry.spec.desired import DesiredState, Neighbour
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore, MemoryLocalBlobs
from skerry.testing.memory_lan import MemoryLan
from skerry.testing.memory_sharing import (
    MemoryDiscovery,
    MemoryDoor,
    MemoryDoors,
    MemoryMulticast,
    MemoryNear,
)
from skerry.trust.heartbeat import key_tag
from skerry.trust.keys import SigningKey
from tests.unit.lan_world import KEYS, NOW, SITE
from tests.unit.test_neighbour_loop import identity

BLOB = b"shared"
DIGEST = digest_of(BLOB)


class Host:
    """A host with its neighbour loop and its door."""

    def __init__(self, number: int, site: Site) -> None:
        self.name, self.address = f"edge-{number}", f"10.0.0.{number + 1}"
        self.blobs = MemoryLocalBlobs(site.root / self.name)
        self.passes = Passes(self.name, SITE, KEYS[number], site.clock.now)
        near = MemoryNear(site.doors, self.name)
        self.sharing = Sharing(self.name, SharingParts(near, self.blobs, site.clock, self.passes.own))
        parts = DoorParts(
            sharing=self.sharing,
            passes=self.passes,
            door=MemoryDoor(site.doors),
            served=Shelf(self.sharing, self.passes, self.blobs, site.clock),
            clock=site.clock,
            discovery=MemoryDiscovery(site.multicast),
        )
        self.end = site.lan.machine(self.address)
        self.keeper = DoorKeeper(parts, host=self.name, key=KEYS[number])
        self.loop = NeighbourLoop(
            identity(number), self.end, MemoryAgentStore(), site.clock, doors=self.keeper
        )

    def desired(self, *others: Host, stated: bool = True) -> DesiredState:
        hosts = (self, *others)
        return DesiredState(
            site=SITE,
            generation=1,
            issued_at=NOW,
            expires_at=NOW,
            hosts={host.name: () for host in hosts},
            neighbours={
                host.name: Neighbour(
                    address=str(host.loop.facts()["lan_address"].value) if stated else "",
                    sign_key=KEYS[int(host.name[-1])].public,
                )
                for host in hosts
            }
            if others
            else {},
        )

    def sees(self) -> str:
        """Return where the blob would come from."""
        return (
            self.sharing.survey([DIGEST]).get(DIGEST, None) and self.sharing.survey([DIGEST])[DIGEST].kind
        ) or ""


class Site:
    """Hosts on a network in memory, at virtual time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock, self.lan = SimulatedClock(NOW), MemoryLan()
        self.doors, self.multicast = MemoryDoors(), MemoryMulticast()
        self.hosts = [Host(number, self) for number in range(3)]
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, *hosts: Host) -> None:
        for host in hosts:
            await host.loop.settle()
            self.tasks.append(asyncio.create_task(host.loop.run_forever()))

    async def pass_s(self, seconds: float) -> None:
        await self.clock.elapse(seconds)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


@pytest.mark.rule("SHARE-5")
async def test_nothing_listens_at_a_site_with_a_single_host(site: Site) -> None:
    host, other, _ = site.hosts
    await site.start(host, other)
    host.loop.follow(host.desired())
    host.loop.tell({})
    await site.pass_s(10)
    assert (site.lan.listening, site.doors.open, site.multicast.announced) == (set(), {}, {})
    host.loop.follow(host.desired(other))
    await site.pass_s(10)
    assert list(site.doors.open) == [f"{host.address}:40000"], "the port of its heartbeats"
    host.loop.follow(host.desired())
    await site.pass_s(10)
    assert (site.lan.listening, site.doors.open, site.multicast.announced) == (set(), {}, {})


async def test_hosts_that_hear_each_other_find_each_others_blobs_and_a_silent_one_is_not_asked(
    site: Site,
) -> None:
    one, other, _ = site.hosts
    await site.start(one, other)
    for host, neighbour in ((one, other), (other, one)):
        host.loop.follow(host.desired(neighbour))
        assert host.sharing.active, "its first heartbeat is waited for"
        host.loop.tell({})
    other.blobs.put(DIGEST, BLOB)
    await site.pass_s(2)
    assert one.sees() == "near"
    with pytest.raises(Denied):
        other.passes.admit(site.hosts[2].passes.own())
    site.lan.cut = {(other.address, one.address)}
    await site.pass_s(30)
    asked = site.doors.asked
    assert one.sees() == ""
    assert site.doors.asked == asked
    await site.pass_s(LOOK_AGAIN_S)
    assert one.loop.views() == {other.name: "silent"}


async def test_a_host_that_nobody_hears_is_waited_for_only_at_the_beginning(site: Site) -> None:
    one, other, _ = site.hosts
    await site.start(one, other)
    one.loop.follow(one.desired(other))
    one.loop.tell({})
    assert one.sees() == "later"
    await site.pass_s(SETTLE_S + 0.1)
    assert not one.sharing.active


async def test_hosts_whose_addresses_nobody_knows_are_found_by_multicast(site: Site) -> None:
    one, other, stranger = site.hosts
    await site.start(one, other)
    one.blobs.put(DIGEST, BLOB)
    for host, neighbour in ((one, other), (other, one)):
        host.loop.follow(host.desired(neighbour, stated=False))
        host.loop.tell({})
    for tag in (key_tag(KEYS[2].key_id).hex(), "00", "no hex", key_tag(KEYS[0].key_id).hex()):
        for look in list(site.multicast.looking.values()):
            look(Announced(tag, f"{stranger.address}:9"))
    await site.pass_s(12)
    assert other.sees() == "near"
    assert one.loop.views() == {other.name: "heard"}


async def test_where_there_is_no_multicast_all_else_goes_on(site: Site) -> None:
    site.multicast.fails = True
    one, other, _ = site.hosts
    await site.start(one, other)
    one.blobs.put(DIGEST, BLOB)
    for host, neighbour in ((one, other), (other, one)):
        host.loop.follow(host.desired(neighbour))
        host.loop.tell({})
    await site.pass_s(2)
    assert other.sees() == "near"


def test_a_token_is_signed_by_the_key_that_the_site_knows() -> None:
    old, new, clock = SigningKey.generate(), SigningKey.generate(), SimulatedClock(NOW)
    mine, other = Passes("edge-0", SITE, old, clock.now), Passes("edge-1", SITE, KEYS[1], clock.now)
    for named in (old, new):
        mine.take_key(new)
        hosts = {"edge-0": Neighbour(sign_key=named.public), "edge-1": Neighbour(sign_key=KEYS[1].public)}
        other.follow(hosts)
        mine.follow(hosts)
        assert other.admit(mine.own()) == "edge-0"
    clock.advance(50 * 60)
    assert other.admit(mine.own()) == "edge-0", "it is renewed in time"


@pytest.mark.parametrize(("text", "port"), (("auto", 0), ("off", None), ("7946", 7946), (":7946", 7946)))
def test_how_to_share_is_read(text: str, port: int | None) -> None:
    assert parse_share(text) == port


@pytest.mark.parametrize("text", ("", "on", "0", "65536", "7946x", "10.0.0.1:7946", "\N{SUPERSCRIPT TWO}"))
def test_what_is_no_way_to_share_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        parse_share(text)
