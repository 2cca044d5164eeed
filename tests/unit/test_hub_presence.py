"""Who waits at the hub is there, although it says nothing; who is cut off is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from skerry.carrier.app import carrier_app
from skerry.carrier.connections import PROBES, Patience, PatientProtocol
from skerry.hub.presence import AT_ONCE, HEARTBEAT_S, PresenceNotes
from skerry.ports.hub_store import HostRecord
from skerry.spec.carrier import SyncRequest
from skerry.testing.clock import settle
from skerry.testing.waiting import eventually
from tests.unit.test_hub_backend import Harbour
from tests.unit.test_hub_connections import serve
from tests.unit.test_hub_policies import Guarded, rollout

pytestmark = pytest.mark.trust

HOUR_S = 3600.0


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Guarded]:
    made = Guarded(tmp_path)
    yield made
    made.hub.store.close()


def stored(harbour: Harbour) -> HostRecord:
    (record,) = harbour.store.hosts()
    return record


def seen(harbour: Harbour) -> HostRecord:
    (record,) = harbour.backend.presence.fresh(harbour.store.hosts())
    return record


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> bool:
        return condition()

    await eventually(look)


async def test_a_host_that_waits_is_there_as_of_now_until_its_wait_ends(harbour: Harbour) -> None:
    edge = await harbour.join()
    waiting = await harbour.wait(edge, 2)
    said_at = harbour.clock.now()
    harbour.clock.advance(HOUR_S)
    assert stored(harbour).last_seen_at == said_at
    assert seen(harbour).last_seen_at == harbour.clock.now()
    harbour.change("harbour", greeting="hello")
    await harbour.hub.issuer.issue("harbour")
    await waiting
    left_at = harbour.clock.now()
    harbour.clock.advance(HOUR_S)
    assert seen(harbour).last_seen_at == left_at
    assert seen(harbour).observed_at == stored(harbour).observed_at, "it said nothing more"


async def test_other_replicas_know_within_half_a_minute_and_a_hub_that_was_ended_does(
    harbour: Harbour,
) -> None:
    edge = await harbour.join()
    waiting = await harbour.wait(edge, 2)
    beat = asyncio.create_task(harbour.backend.presence.run_forever())
    await settle()
    for _ in range(4):
        harbour.clock.advance(HEARTBEAT_S)
        at = harbour.clock.now()
        await until(lambda at=at: stored(harbour).last_seen_at == at)  # type: ignore[misc]
    sequence = harbour.sequence(edge)
    other = PresenceNotes(harbour.store, harbour.clock)
    assert other.fresh(harbour.store.hosts())[0].last_seen_at == harbour.clock.now()
    assert sequence == 2, "no report is made up"
    for task in (beat, waiting):
        task.cancel()
    await asyncio.gather(beat, waiting, return_exceptions=True)


async def test_what_another_says_of_a_host_counts_unless_something_later_is_known(harbour: Harbour) -> None:
    await harbour.join()
    presence, now = harbour.backend.presence, harbour.clock.now()
    presence.note("edge", now + timedelta(seconds=5))
    presence.note("edge", now)
    assert seen(harbour).last_seen_at == now + timedelta(seconds=5)
    await presence.flush()
    assert stored(harbour).last_seen_at == now + timedelta(seconds=5)
    presence.note("edge", now + timedelta(seconds=4))
    assert seen(harbour).last_seen_at == now + timedelta(seconds=5)
    for number in range(2 * AT_ONCE + 1):
        presence.note(f"host-{number}", now)
    await presence.flush()
    assert stored(harbour).last_seen_at == now + timedelta(seconds=5)
    presence.note("edge", now + timedelta(seconds=9))
    presence.forget("edge")
    assert seen(harbour).last_seen_at == now + timedelta(seconds=5)


async def test_a_connection_that_is_cut_ends_the_presence_of_who_waited_on_it(harbour: Harbour) -> None:
    edge = await harbour.join()
    generation = (await harbour.hub.issuer.issued("harbour")).generation
    body = msgspec.json.encode(SyncRequest(reports=(edge.signed(2, generation=generation),), wait_s=600.0))
    head = b"POST /v1/sync HTTP/1.1\r\nHost: hub\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serve(carrier_app(harbour.backend), Patience()) as served:
        _, writer = await served.open(head + body)

        def there() -> bool:
            harbour.clock.advance(1.0)
            return seen(harbour).last_seen_at == harbour.clock.now()

        await until(lambda: harbour.sequence(edge) == 2)
        await until(there)
        cut_at = harbour.clock.now()
        writer.transport.abort()

        await until(lambda: not there())
        last = seen(harbour).last_seen_at
        assert last is not None and last >= cut_at
        assert not harbour.notifier._waiting, "nobody is waited for any more"


async def test_the_kernel_asks_whether_who_waits_is_still_there(harbour: Harbour) -> None:
    async with serve(carrier_app(harbour.backend), Patience()) as served:
        _, writer = await served.open()
        await until(lambda: len(served.crowds._unfinished) == 1)
        (connection,) = served.crowds._unfinished._members
        assert isinstance(connection, PatientProtocol)
        found = connection.transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == PROBES["TCP_KEEPIDLE"]
        writer.close()


async def test_an_idle_host_that_waits_is_online_and_its_site_is_offered_releases(world: Guarded) -> None:
    """Both sites tolerate a minute of silence; the hosts of both have said nothing for an hour."""
    for name in ("harbour", "pier"):
        world.site(name, labels={"region": "north"}, tolerance="1m")
    world.clock.advance(HOUR_S)
    await world.attach()
    await world.applied("operator", rollout())
    with world.hub.backend.presence.waiting("pier-edge"):
        assert await world.step() == {"pier": "camera@1"}
        assert world.rollout("spring").sites["harbour"].state == "unreachable"
        hosts = (await world.shown("/hosts")).json()
        assert {host["name"]: host["presence"] for host in hosts} == {
            "harbour-edge": "silent",
            "pier-edge": "online",
        }
        one = (await world.shown("/hosts/pier-edge")).json()
        site = (await world.shown("/sites/pier")).json()
        assert (one["presence"], site["presence"], site["hosts_online"]) == ("online", "online", 1)
        assert (await world.shown("/sites/harbour")).json()["presence"] == "silent"
    world.clock.advance(61.0)
    assert (await world.shown("/hosts/pier-edge")).json()["presence"] == "silent"
    await world.step()
    assert world.rollout("spring").sites["pier"].state == "unreachable"
