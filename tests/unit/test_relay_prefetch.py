"""What a relay fetches ahead: in the order of its urgency, and never in the way of who waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.delivery.budget import link_policy
from skerry.kit.errors import Unavailable
from skerry.relay.loops.prefetch import Prefetcher
from skerry.spec.desired import SitePolicy
from skerry.spec.relay import RelaySpec, RelayState, WantedBlob
from skerry.spec.site import SiteLink
from skerry.testing.clock import settle
from skerry.testing.waiting import eventually
from tests.unit.relay_shelf import CHUNK, Shelf, is_now

pytestmark = pytest.mark.delivery


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    if made.depot.gate is not None:
        made.depot.gate.release(10_000)
    await made.cache.close()


def state_of(shelf: Shelf, *digests: str, prefetch: bool = True) -> RelayState:
    now = shelf.clock.now()
    return RelayState(
        relay="l3",
        generation=1,
        issued_at=now,
        expires_at=now,
        spec=RelaySpec(addresses=("l3:8443",), prefetch=prefetch),
        wanted=tuple(
            WantedBlob(digest=digest, size_bytes=len(shelf.depot.contents[digest])) for digest in digests
        ),
    )


async def test_what_is_wanted_is_fetched_in_its_order(shelf: Shelf) -> None:
    digests = [shelf.stock(CHUNK * number, seed=number) for number in (3, 1, 2)]
    prefetcher = Prefetcher(shelf.cache, shelf.clock)
    prefetcher.follow(state_of(shelf, *digests))
    await prefetcher.fetch_all()
    assert [digest for digest, _ in shelf.depot.opened] == digests
    assert (shelf.cache.view().wanted, shelf.cache.view().wanted_here) == (3, 3)
    prefetcher.follow(state_of(shelf, shelf.stock(CHUNK, seed=9), prefetch=False))
    await prefetcher.fetch_all()
    assert len(shelf.depot.opened) == 3


async def test_what_is_more_urgent_takes_the_place_of_what_is_less_and_not_the_other_way(
    shelf: Shelf,
) -> None:
    less, more = shelf.stock(5 * CHUNK, seed=1), shelf.stock(6 * CHUNK, seed=2)
    shelf.cache.limit_bytes = 8 * CHUNK
    prefetcher = Prefetcher(shelf.cache, shelf.clock)
    prefetcher.follow(state_of(shelf, less))
    await prefetcher.fetch_all()
    prefetcher.follow(state_of(shelf, more, less))
    for _ in range(2):
        await prefetcher.fetch_all()
    assert shelf.blobs.has(more)
    assert not shelf.blobs.has(less)
    assert len(shelf.depot.opened) == 2
    assert "no room" in prefetcher.trouble


async def test_fetching_ahead_gives_way_to_who_waits(shelf: Shelf) -> None:
    ahead, now = shelf.stock(10 * CHUNK, seed=1), shelf.stock(2 * CHUNK, seed=2)
    shelf.depot.gate = gate = threading.Semaphore(2)
    prefetcher = Prefetcher(shelf.cache, shelf.clock)
    prefetcher.follow(state_of(shelf, ahead))
    running = asyncio.create_task(prefetcher.fetch_all())
    await eventually(lambda: is_now(shelf.blobs.partial_size(ahead) >= CHUNK))
    reading = asyncio.create_task(shelf.read(now))
    await settle()
    gate.release(4)
    assert await reading == shelf.depot.contents[now]
    with pytest.raises(Unavailable) as caught:
        await running
    assert caught.value.code == "relay.gave_way"
    gate.release(100)
    await prefetcher.fetch_all()
    assert shelf.blobs.has(ahead)


def held_back(shelf: Shelf) -> tuple[threading.Event, threading.Event]:
    """Let fetches that make way wait for a test: the first event is set when one waits, the other lets it go on."""
    waits, goes_on = threading.Event(), threading.Event()

    def pause(stop: threading.Event, _: float) -> bool:
        waits.set()
        goes_on.wait(30)
        return stop.is_set()

    shelf.pause = pause
    return waits, goes_on


async def test_what_is_on_its_way_when_a_fetch_makes_way_does_not_cross_the_link_again(shelf: Shelf) -> None:
    waits, goes_on = held_back(shelf)
    await shelf.restart()
    ahead, now, other = (shelf.stock(number * CHUNK, seed=number) for number in (10, 2, 3))
    shelf.depot.gate = gate = threading.Semaphore(2)
    prefetcher = Prefetcher(shelf.cache, shelf.clock)
    prefetcher.follow(state_of(shelf, ahead))
    running = asyncio.create_task(prefetcher.fetch_all())
    await eventually(lambda: is_now(shelf.blobs.partial_size(ahead) >= CHUNK))
    readings = [asyncio.create_task(shelf.read(one)) for one in (now, other)]
    await eventually(lambda: is_now(len(shelf.depot.asked) == 2))
    gate.release(20)
    assert [len(await one) for one in readings] == [2 * CHUNK, 3 * CHUNK]
    assert not running.done()
    goes_on.set()
    await running
    assert shelf.blobs.has(ahead)
    assert waits.is_set()
    assert sorted(shelf.depot.opened) == sorted([(ahead, 0), (now, 0), (other, 0)])
    assert shelf.depot.sent == 15 * CHUNK


async def test_a_fetch_that_makes_way_leaves_the_budget_to_those_who_pass(shelf: Shelf) -> None:
    budget = SiteLink(per_day="300KiB")
    shelf.limiter.follow(SitePolicy(link=link_policy(budget, hosts=1)), {})
    waits, goes_on = held_back(shelf)
    await shelf.restart()
    ahead, now = shelf.stock(20 * CHUNK, seed=1), shelf.stock(20 * CHUNK, seed=2)
    shelf.depot.gate = gate = threading.Semaphore(2)
    prefetcher = Prefetcher(shelf.cache, shelf.clock)
    prefetcher.follow(state_of(shelf, ahead))
    running = asyncio.create_task(prefetcher.fetch_all())
    await eventually(lambda: is_now(shelf.blobs.partial_size(ahead) >= CHUNK))
    reading = asyncio.create_task(shelf.read(now))
    await eventually(lambda: is_now(len(shelf.depot.opened) == 2))
    while not waits.wait(0.05):
        gate.release()
    gate.release(100)
    assert await reading == shelf.depot.contents[now]
    goes_on.set()
    with pytest.raises(Unavailable) as caught:
        await running
    assert caught.value.code == "relay.link_held", "and then it asks what is left"
    assert shelf.blobs.partial_size(ahead) >= CHUNK
