"""Room, streams and ends of downloads with deltas: what came stays, and is not fetched again."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.fetcher import MAX_STREAMS
from skerry.agent.fetching_progress import Fetched
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.testing.faults import FaultPlan, FaultyLocalBlobs
from skerry.testing.memory import MemoryLocalBlobs
from tests.unit.delta_files_of import noise
from tests.unit.fetching_world import BASE, DELTA, NEW, OLD, RELEASE, fetching_host, offer, offers

pytestmark = pytest.mark.delivery


@pytest.fixture
def memory(tmp_path: Path) -> MemoryLocalBlobs:
    return MemoryLocalBlobs(tmp_path / "blobs")


@pytest.mark.parametrize(("room", "by_delta"), ((len(NEW) + len(DELTA), 1), (len(NEW), 0)))
async def test_where_a_delta_has_no_room_beside_the_blob_it_comes_in_full(
    tmp_path: Path, memory: MemoryLocalBlobs, room: int, by_delta: int
) -> None:
    asked: list[frozenset[str]] = []

    def make_room(needed: int, used: frozenset[str]) -> None:
        asked.append(used)
        if needed > room:
            raise Unavailable("disk.full", "disk full")

    async with fetching_host(tmp_path, memory, OLD) as host:
        host.fetcher.make_room = make_room
        host.link.delta_answers = [offers(offer())]
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert asked[0] == {digest_of(NEW), digest_of(DELTA), digest_of(OLD)}, "the base must stay as well"
        size = len(DELTA) if by_delta else len(NEW)
        assert host.link.sent_bytes == size
        assert host.fetched == [Fetched(1, by_delta, size, len(NEW))]


async def test_a_disk_that_is_full_while_a_delta_is_applied_costs_nothing_of_the_delta(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        memory.room_bytes = len(OLD) + len(DELTA) + 1000
        host.link.delta_answers = [offers(offer())]
        for _ in range(2):
            assert "no room" in await host.attempt_new()
        memory.room_bytes = None
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(DELTA)
        assert host.fetched == [Fetched(1, 1, len(DELTA), len(NEW))]


async def test_a_failing_disk_while_a_delta_is_applied_is_no_fault_of_the_delta(tmp_path: Path) -> None:
    plan = FaultPlan().fail("make_by_delta", OSError(5, os.strerror(5)))
    blobs = FaultyLocalBlobs(DirectoryBlobs(tmp_path / "blobs"), plan)
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer())]
        assert "the disk fails" in await host.attempt_new()
        assert await host.attempt_new() == ""
        assert host.link.sent_bytes == len(DELTA)


def many(count: int) -> list[bytes]:
    return [noise(3000, 100 + number) for number in range(count)]


async def test_on_a_far_link_several_blobs_come_at_a_time(tmp_path: Path, memory: MemoryLocalBlobs) -> None:
    contents = many(2 * MAX_STREAMS)
    async with fetching_host(tmp_path, memory, served=(*contents, NEW)) as host:
        host.link.latency_s = 0.6
        assert await host.attempt(NEW, release="first") == ""
        host.link.gate = threading.Barrier(MAX_STREAMS)
        assert await host.attempt(*contents) == ""
        assert host.link.most_open == MAX_STREAMS
        assert [host.content(one) for one in contents] == contents


async def test_on_a_near_link_one_blob_comes_after_the_other(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    contents = many(6)
    async with fetching_host(tmp_path, memory, served=(*contents, NEW)) as host:
        host.link.latency_s = 0.02
        assert await host.attempt(NEW, release="first") == ""
        assert await host.attempt(*contents) == ""
        assert host.link.most_open == 1
        assert [digest for digest, _ in host.link.opened[1:]] == [digest_of(one) for one in contents]


@pytest.mark.parametrize("latency_s", (0.0, 0.6))
async def test_the_first_failure_ends_all_and_what_came_stays(
    tmp_path: Path, memory: MemoryLocalBlobs, latency_s: float
) -> None:
    contents = many(12)
    async with fetching_host(tmp_path, memory, served=(*contents, NEW)) as host:
        host.link.latency_s = latency_s
        assert await host.attempt(NEW, release="first") == ""
        streams = MAX_STREAMS if latency_s else 1
        if latency_s:
            host.link.gate = threading.Barrier(MAX_STREAMS)
        before = len(host.link.opened)
        host.link.cuts = [1000] * MAX_STREAMS
        assert "cut off" in await host.attempt(*contents)
        assert len(host.link.opened) - before == streams
        assert host.link.open == 0
        host.link.gate, host.link.cuts = None, []
        assert await host.attempt(*contents) == ""
        assert [host.content(one) for one in contents] == contents
        assert host.link.sent_bytes == len(NEW) + sum(map(len, contents))


class Applying(MemoryLocalBlobs):
    """Takes as long to apply a delta as the test likes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.began, self.go_on = threading.Event(), threading.Event()

    def make_by_delta(self, digest: str, size_bytes: int, *, base: Sequence[str], delta: str) -> Path:
        self.began.set()
        assert self.go_on.wait(20)
        return super().make_by_delta(digest, size_bytes, base=base, delta=delta)


async def test_what_is_wanted_no_more_while_a_delta_is_applied_is_forgotten_and_harms_nothing(
    tmp_path: Path,
) -> None:
    blobs = Applying(tmp_path / "blobs")
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer())]
        host.want(NEW, bases={NEW: (BASE, ())})
        await host.until(blobs.began.is_set)
        host.fetcher.forget(set())
        assert (host.fetcher.progress(), host.fetcher.troubles) == ({}, {})
        blobs.go_on.set()
        await host.until(lambda: host.content(NEW) == NEW and host.content(DELTA) is None)
        assert host.fetched == []
        assert await host.attempt_new() == "", "what was made stays, and nothing has to be fetched for it"
        assert host.link.sent_bytes == len(DELTA)


async def test_wanted_again_while_the_first_still_applies_it_comes_once(tmp_path: Path) -> None:
    blobs = Applying(tmp_path / "blobs")
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer())]
        host.want(NEW, bases={NEW: (BASE, ())})
        await host.until(blobs.began.is_set)
        host.fetcher.forget(set())
        before = host.changes
        host.want(NEW, bases={NEW: (BASE, ())})
        blobs.go_on.set()
        await host.until(lambda: host.changes > before + 1 and RELEASE not in host.fetcher.progress())
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(DELTA)
