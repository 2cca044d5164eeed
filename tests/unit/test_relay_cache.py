"""The relay's cache: one fetch for all, streamed onward as it comes, never a wrong byte to its end, and bounded."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.delivery.budget import link_policy
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Unavailable, Untrusted
from skerry.spec.desired import SitePolicy
from skerry.spec.site import SiteLink
from skerry.testing.faults import FaultPlan, FaultyLocalBlobs
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


async def test_a_thousand_readers_are_one_fetch(shelf: Shelf) -> None:
    digest = shelf.stock(5 * CHUNK)
    contents = await asyncio.gather(*(shelf.read(digest) for _ in range(1000)))
    assert set(contents) == {shelf.depot.contents[digest]}
    assert shelf.depot.opened == [(digest, 0)]
    assert shelf.depot.asked == [digest]
    assert shelf.depot.sent == 5 * CHUNK
    assert await shelf.read(digest) == contents[0]
    view = shelf.cache.view()
    assert (view.blobs, view.fetched_bytes, view.hits + view.misses) == (1, 5 * CHUNK, 1001)


async def test_what_has_come_is_handed_on_before_the_rest_is_here(shelf: Shelf) -> None:
    digest = shelf.stock(10 * CHUNK)
    content = shelf.depot.contents[digest]
    shelf.depot.gate = gate = threading.Semaphore(4)
    first = shelf.cache.read(digest)
    seen = await anext(first)
    while len(seen) < 3 * CHUNK:
        seen += await anext(first)
    assert content.startswith(seen)
    inside = await asyncio.wait_for(shelf.read(digest, CHUNK + 5, 2 * CHUNK + 7), 30)
    assert inside == content[CHUNK + 5 : 2 * CHUNK + 7]
    late = asyncio.create_task(shelf.read(digest, 9 * CHUNK))
    gate.release(20)
    async for chunk in first:
        seen += chunk
    assert seen == content
    assert await late == content[9 * CHUNK :]
    assert shelf.depot.opened == [(digest, 0)]


@pytest.mark.rule("RELAY-3")
async def test_a_blob_that_is_another_is_cut_before_its_end_and_never_served_again(shelf: Shelf) -> None:
    digest = shelf.stock(3 * CHUNK)
    good = shelf.depot.contents[digest]
    shelf.depot.contents[digest] = good[:-1] + bytes([good[-1] ^ 1])
    seen = bytearray()

    async def read() -> None:
        async for chunk in shelf.cache.read(digest):
            seen.extend(chunk)

    with pytest.raises(Unavailable):
        await read()
    assert len(seen) < len(good), "it was cut, and did not end"
    assert not shelf.blobs.has(digest)
    assert shelf.blobs.partial_size(digest) == 0
    assert shelf.cache.view().damaged == 1
    with pytest.raises(Unavailable):
        await shelf.read(digest)
    assert len(shelf.depot.opened) == 1, "it is not asked for again at once"
    shelf.depot.contents[digest] = good
    shelf.clock.advance(60.0)
    assert await shelf.read(digest) == good


@pytest.mark.parametrize("wrong", ("longer", "shorter"))
async def test_a_blob_of_another_length_than_was_said_never_ends(shelf: Shelf, wrong: str) -> None:
    digest = shelf.stock(3 * CHUNK)
    good = shelf.depot.contents[digest]
    shelf.want(digest)
    shelf.depot.contents[digest] = good + b"more" if wrong == "longer" else good[:-5]
    reading = asyncio.create_task(shelf.read(digest))
    while not reading.done():
        await shelf.clock.elapse(100.0)
        await asyncio.sleep(0.005)
    with pytest.raises(Unavailable):
        await reading
    assert not shelf.blobs.has(digest)


async def test_a_fetch_goes_on_at_the_byte_where_a_kill_ended_it(shelf: Shelf) -> None:
    digest = shelf.stock(10 * CHUNK)
    shelf.depot.gate = gate = threading.Semaphore(4)
    reading = asyncio.create_task(shelf.read(digest))
    await eventually(lambda: is_now(shelf.blobs.partial_size(digest) >= 3 * CHUNK))
    reading.cancel()
    gate.release(1)
    await shelf.cache.close()
    shelf.depot.gate = None
    shelf.begin()
    assert await shelf.read(digest) == shelf.depot.contents[digest]
    assert shelf.depot.opened[1][1] >= 3 * CHUNK


async def test_a_cut_is_gone_on_with_while_somebody_waits(shelf: Shelf) -> None:
    digest = shelf.stock(6 * CHUNK)
    shelf.depot.cuts = [3 * CHUNK, 1 * CHUNK]
    reading = asyncio.create_task(shelf.read(digest))
    while not reading.done():
        await shelf.clock.elapse(60.0)
        await asyncio.sleep(0.005)
    assert await reading == shelf.depot.contents[digest]
    assert [offset for _, offset in shelf.depot.opened] == [0, 3 * CHUNK, 4 * CHUNK]


async def test_with_no_upstream_what_is_here_is_served_and_the_rest_is_said_to_be_away(shelf: Shelf) -> None:
    (here,) = await shelf.fill(2 * CHUNK)
    other = shelf.stock(CHUNK, seed=99)
    shelf.depot.away = True
    assert len(await shelf.read(here)) == 2 * CHUNK
    with pytest.raises(Unavailable):
        await shelf.cache.size(other)
    shelf.want(other)
    with pytest.raises(Unavailable):
        await shelf.cache.size(other)


async def test_a_blob_that_nobody_has_is_missing(shelf: Shelf) -> None:
    assert await shelf.cache.size(digest_of(b"nobody has this")) is None
    with pytest.raises(Missing):
        await shelf.read(digest_of(b"nobody has this"))


async def test_an_empty_blob_is_a_blob(shelf: Shelf) -> None:
    digest = shelf.stock(0)
    assert await shelf.read(digest) == b""
    assert shelf.blobs.has(digest)


@pytest.mark.rule("RELAY-3")
async def test_a_blob_that_was_damaged_on_disk_is_fetched_again_after_a_restart(shelf: Shelf) -> None:
    (digest,) = await shelf.fill(3 * CHUNK)
    file = shelf.blobs.path(digest)
    content = bytearray(file.read_bytes())
    content[CHUNK] ^= 1
    file.write_bytes(content)
    await shelf.restart()
    assert await shelf.read(digest) == shelf.depot.contents[digest]
    assert len(shelf.depot.opened) == 2
    assert shelf.cache.view().damaged == 1


@pytest.mark.rule("RELAY-3")
async def test_a_damaged_blob_is_found_without_anybody_asking(shelf: Shelf) -> None:
    (digest, other) = await shelf.fill(CHUNK, CHUNK + 1)
    shelf.blobs.path(digest).write_bytes(b"damaged")
    await shelf.cache.close()
    verified: list[str] = []
    shelf.watch(verified)
    looking = asyncio.create_task(shelf.cache.verify_forever())
    while len(verified) < 2:
        await shelf.clock.elapse(1.0)
        await asyncio.sleep(0.005)
    assert not shelf.blobs.has(digest)
    assert shelf.blobs.has(other)
    assert shelf.cache.view().blobs == 1
    shelf.blobs.path(other).write_bytes(b"damaged later")
    hours = 0
    while shelf.blobs.has(other):
        hours += 1
        await shelf.clock.elapse(3600.0)
    assert 22 <= hours < 40, "verified again a day later"
    looking.cancel()


@pytest.mark.rule("RELAY-3")
async def test_a_blob_that_somebody_writes_to_is_verified_before_it_is_served_again(shelf: Shelf) -> None:
    (digest,) = await shelf.fill(3 * CHUNK)
    file = shelf.blobs.path(digest)
    content = bytearray(file.read_bytes())
    content[CHUNK] ^= 1
    times = file.stat().st_atime, file.stat().st_mtime
    file.write_bytes(content)
    os.utime(file, times)
    assert await shelf.read(digest) == shelf.depot.contents[digest]
    assert len(shelf.depot.opened) == 2
    assert shelf.cache.view().damaged == 1


async def test_a_blob_is_verified_once_however_often_it_is_read(shelf: Shelf) -> None:
    (digest,) = await shelf.fill(3 * CHUNK)
    await shelf.restart()
    verified: list[str] = []
    shelf.watch(verified)
    for _ in range(3):
        shelf.clock.advance(1000.0)  # what says when it was last used is a time of its file
        await asyncio.gather(*(shelf.read(digest) for _ in range(5)))
    assert verified == [digest]


async def test_what_was_not_used_for_longest_goes_first_also_after_a_restart(shelf: Shelf) -> None:
    old, older = await shelf.fill(4 * CHUNK, 4 * CHUNK + 1)
    shelf.clock.advance(1000.0)
    await shelf.read(old)  # now the other one is
    shelf.limit_bytes = 10 * CHUNK
    await shelf.restart()
    await shelf.read(shelf.stock(3 * CHUNK, seed=50))
    assert shelf.blobs.has(old)
    assert not shelf.blobs.has(older)
    assert shelf.cache.used_bytes <= 10 * CHUNK


async def test_a_wanted_blob_stays_while_there_are_others(shelf: Shelf) -> None:
    wanted, other = await shelf.fill(4 * CHUNK, 4 * CHUNK + 1)
    shelf.want(wanted)
    shelf.cache.limit_bytes = 9 * CHUNK
    shelf.clock.advance(1000.0)
    await shelf.read(other)
    await shelf.read(shelf.stock(3 * CHUNK, seed=50))
    assert shelf.blobs.has(wanted)
    assert not shelf.blobs.has(other)


async def test_a_blob_that_is_read_stays_until_its_reader_is_done(shelf: Shelf) -> None:
    (digest,) = await shelf.fill(300 * CHUNK)
    reading = shelf.cache.read(digest)
    first = await anext(reading)
    shelf.cache.limit_bytes = 100 * CHUNK
    await shelf.read(shelf.stock(CHUNK, seed=50))
    rest = b"".join([chunk async for chunk in reading])
    assert first + rest == shelf.depot.contents[digest]
    await shelf.read(shelf.stock(CHUNK, seed=51))
    assert not shelf.blobs.has(digest)


async def test_a_full_disk_lets_go_of_what_matters_least(shelf: Shelf) -> None:
    (old,) = await shelf.fill(2 * CHUNK)
    plan = FaultPlan().fail("append", Unavailable("disk.full", "no room"))
    shelf.cache._blobs = FaultyLocalBlobs(shelf.blobs, plan)
    digest = shelf.stock(CHUNK, seed=50)
    assert await shelf.read(digest) == shelf.depot.contents[digest]
    assert not shelf.blobs.has(old)


async def test_blobs_leave_room_on_the_disk_for_reports(shelf: Shelf) -> None:
    shelf.cache._room = lambda: 4 * CHUNK - shelf.cache.used_bytes
    old, _ = await shelf.fill(CHUNK, CHUNK)
    large = shelf.stock(5 * CHUNK, seed=50)
    with pytest.raises(Unavailable, match="no room") as caught:
        await shelf.cache.size(large)
    assert caught.value.code == "relay.disk_full"
    assert large not in {digest for digest, _ in shelf.depot.opened}
    assert shelf.blobs.has(old), "nothing goes in vain"
    shelf.want(large)
    assert not shelf.cache.has_room(large)
    fits = shelf.stock(3 * CHUNK, seed=51)
    assert await shelf.read(fits) == shelf.depot.contents[fits]
    assert not shelf.blobs.has(old)


async def test_what_came_of_a_blob_makes_room_when_the_disk_fills_up_meanwhile(shelf: Shelf) -> None:
    digest = shelf.stock(3 * CHUNK)
    shelf.depot.cuts = [2 * CHUNK]
    arrival = shelf.cache.bring(digest, 3 * CHUNK, urgent=False)
    while not arrival.ended:
        await arrival.change()
    assert shelf.blobs.partial_size(digest) == 2 * CHUNK
    plan = FaultPlan().fail("append", Unavailable("disk.full", "no room"))
    shelf.cache._blobs = FaultyLocalBlobs(shelf.blobs, plan)
    with pytest.raises(Unavailable, match="no room"):
        await shelf.read(digest)
    assert shelf.blobs.partial_size(digest) == 0
    assert await shelf.read(digest) == shelf.depot.contents[digest]


async def test_nothing_flows_outside_the_links_budget_and_it_is_said_why(shelf: Shelf) -> None:
    shelf.limiter.follow(SitePolicy(link=link_policy(SiteLink(rate="0"), hosts=1)), {})
    digest = shelf.stock(CHUNK)
    with pytest.raises(Unavailable) as caught:
        await shelf.cache.size(digest)
    assert caught.value.code == "relay.link_held"
    assert shelf.depot.opened == []


async def test_a_blob_that_comes_by_another_way_ends_its_fetch_for_all_who_wait(
    shelf: Shelf, tmp_path: Path
) -> None:
    digest = shelf.stock(10 * CHUNK)
    content = shelf.depot.contents[digest]
    shelf.depot.gate = gate = threading.Semaphore(2)
    waiting = shelf.cache.read(digest)
    seen = await anext(waiting)
    file = tmp_path / "carried"
    file.write_bytes(content)
    await shelf.cache.take_in({digest: file})
    assert await shelf.read(digest) == content, "whoever comes now need not wait"
    gate.release()
    async for chunk in waiting:
        seen += chunk
    assert seen == content
    assert shelf.depot.sent < 5 * CHUNK, "the rest does not cross the link"
    assert not file.exists()
    assert shelf.cache.view().blobs == 1


@pytest.mark.rule("RELAY-3")
async def test_another_blob_that_comes_by_another_way_is_not_taken(shelf: Shelf, tmp_path: Path) -> None:
    digest = shelf.stock(CHUNK)
    file = tmp_path / "carried"
    file.write_bytes(b"another")
    with pytest.raises(Untrusted):
        await shelf.cache.take_in({digest: file})
    assert not shelf.cache.has(digest)
    file.unlink()
    with pytest.raises(Missing):
        await shelf.cache.take_in({digest: file})
    assert await shelf.read(digest) == shelf.depot.contents[digest]
    await shelf.cache.take_in({digest: file})
