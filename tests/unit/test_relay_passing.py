"""Blobs that a relay's cache is too small for: they pass through, whole ones verified, and drive nothing out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.delivery.budget import link_policy
from skerry.kit.errors import Unavailable
from skerry.relay.passing import MAX_PASSING
from skerry.spec.desired import SitePolicy
from skerry.spec.site import SiteLink
from skerry.testing.waiting import eventually
from tests.unit.relay_shelf import CHUNK, Shelf, is_now

pytestmark = pytest.mark.delivery


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    made = Shelf(tmp_path, limit_bytes=4 * CHUNK)
    yield made
    if made.depot.gate is not None:
        made.depot.gate.release(10_000)
    await made.cache.close()


async def read_into(seen: bytearray, shelf: Shelf, digest: str) -> None:
    async for chunk in shelf.cache.read(digest):
        seen.extend(chunk)


async def test_a_blob_that_is_larger_than_the_cache_passes_through_and_drives_nothing_out(
    shelf: Shelf,
) -> None:
    (kept,) = await shelf.fill(3 * CHUNK)
    large = shelf.stock(9 * CHUNK + 17, seed=1)
    shelf.want(large, kept)
    content = shelf.depot.contents[large]
    assert await shelf.read(large) == content
    assert await shelf.read(large, 5 * CHUNK) == content[5 * CHUNK :]
    assert await shelf.read(large, 5, 2 * CHUNK + 3) == content[5 : 2 * CHUNK + 3]
    assert shelf.blobs.has(kept)
    assert not shelf.blobs.has(large)
    assert shelf.blobs.partial_size(large) == 0
    view = shelf.cache.view()
    assert (view.used_bytes, view.hits) == (3 * CHUNK, 0)
    assert view.fetched_bytes == 3 * CHUNK + len(content) + len(content) - 5 * CHUNK + 2 * CHUNK - 2


@pytest.mark.rule("RELAY-3")
async def test_what_passes_through_and_is_another_blob_never_ends(shelf: Shelf) -> None:
    large = shelf.stock(9 * CHUNK)
    good = shelf.depot.contents[large]
    shelf.depot.contents[large] = bytes([good[0] ^ 1]) + good[1:]
    seen = bytearray()
    with pytest.raises(Unavailable):
        await read_into(seen, shelf, large)
    assert len(seen) < len(good)
    assert shelf.cache.view().damaged == 1
    with pytest.raises(Unavailable):
        await shelf.cache.size(large)
    shelf.depot.contents[large] = good
    shelf.clock.advance(60.0)
    assert await shelf.read(large) == good


async def test_a_cut_is_told_and_the_reader_goes_on_where_it_is(shelf: Shelf) -> None:
    large = shelf.stock(9 * CHUNK)
    shelf.depot.cuts = [4 * CHUNK]
    seen = bytearray()
    with pytest.raises(Unavailable):
        await read_into(seen, shelf, large)
    assert seen == shelf.depot.contents[large][: 4 * CHUNK]
    assert seen + await shelf.read(large, len(seen)) == shelf.depot.contents[large]


async def test_what_passes_through_keeps_to_the_links_budget(shelf: Shelf) -> None:
    large = shelf.stock(9 * CHUNK)
    shelf.limiter.follow(SitePolicy(link=link_policy(SiteLink(per_day="50000B"), hosts=1)), {})
    seen = bytearray()
    with pytest.raises(Unavailable) as caught:
        await read_into(seen, shelf, large)
    assert caught.value.code == "relay.link_held"
    assert len(seen) == 50_000
    await shelf.clock.elapse(86_400.0)
    shelf.limiter.follow(SitePolicy(), {})
    assert len(await shelf.read(large)) == 9 * CHUNK, "what was granted is not kept"


async def test_what_was_granted_and_did_not_come_is_given_back(shelf: Shelf) -> None:
    large = shelf.stock(9 * CHUNK)
    shelf.limiter.follow(SitePolicy(link=link_policy(SiteLink(per_day="140000B"), hosts=1)), {})
    shelf.depot.cuts = [4 * CHUNK]
    with pytest.raises(Unavailable):
        await shelf.read(large)
    assert len(await shelf.read(large)) == 9 * CHUNK


async def test_who_leaves_while_the_links_rate_is_waited_for_keeps_nobody_waiting(shelf: Shelf) -> None:
    waits: list[threading.Event] = []

    def pause(stop: threading.Event, _: float) -> bool:
        waits.append(stop)
        return stop.wait(30)

    shelf.pause = pause
    await shelf.restart()
    shelf.limiter.follow(SitePolicy(link=link_policy(SiteLink(rate="5000B/s"), hosts=1)), {})
    reading = asyncio.create_task(shelf.read(shelf.stock(9 * CHUNK)))
    await eventually(lambda: is_now(bool(waits)))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert waits[0].is_set()


async def test_who_leaves_in_the_middle_ends_what_passes_through_for_him(shelf: Shelf) -> None:
    large = shelf.stock(9 * CHUNK)
    shelf.depot.gate = gate = threading.Semaphore(3)
    reading = [asyncio.create_task(shelf.read(large)) for _ in range(MAX_PASSING)]
    await eventually(lambda: is_now(len(shelf.depot.opened) == MAX_PASSING))
    with pytest.raises(Unavailable) as caught:
        await shelf.cache.size(large)
    assert caught.value.code == "relay.busy"
    for one in reading:
        one.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    gate.release(100)
    assert await shelf.read(large) == shelf.depot.contents[large]
    assert shelf.depot.sent < 2 * MAX_PASSING * 9 * CHUNK // 2, "the others read no more"
