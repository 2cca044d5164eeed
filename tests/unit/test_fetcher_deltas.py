"""Blobs come by delta where that is cheaper, and another way where a delta is bad, late, or not to be had."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.fetcher import Priority
from skerry.agent.fetching_progress import Fetched
from skerry.kit.digests import digest_of
from skerry.kit.errors import Bug, Conflict, Missing, Rejected, SkerryError, Unavailable
from skerry.ports.blobs import LocalBlobs
from skerry.spec.carrier import MAX_DELTA_QUESTIONS, DeltaAnswer, DeltaAvailable
from skerry.spec.desired import LinkPolicy, SitePolicy
from skerry.testing.memory import MemoryLocalBlobs
from tests.unit.delta_files_of import delta_of, noise
from tests.unit.fetching_world import (
    BASE,
    DELTA,
    NEW,
    OLD,
    PACKED,
    FetchingHost,
    fetching_host,
    offer,
    offers,
    soon,
)

pytestmark = pytest.mark.delivery

KINDS: dict[str, Callable[[Path], LocalBlobs]] = {
    "directory": lambda path: DirectoryBlobs(path / "blobs"),
    "memory": lambda path: MemoryLocalBlobs(path / "blobs"),
}


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> LocalBlobs:
    return KINDS[str(request.param)](tmp_path)


@pytest.fixture
def memory(tmp_path: Path) -> MemoryLocalBlobs:
    return MemoryLocalBlobs(tmp_path / "blobs")


def unfinished(root: Path) -> list[str]:
    folder = root / "blobs" / "partial"
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


# ── the good way ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_blob_comes_by_delta_and_costs_what_the_delta_has(tmp_path: Path, blobs: LocalBlobs) -> None:
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer(PACKED, base=()), offer())]
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(DELTA) < len(NEW) / 10
        (request,) = host.link.delta_requests
        assert [(one.target, one.bases) for one in request.wanted] == [(digest_of(NEW), (BASE, ()))]
        assert host.fetched == [Fetched(1, 1, len(DELTA), len(NEW))]
        assert host.content(DELTA) is None, "it has done its work"
        assert host.content(OLD) == OLD
        assert (host.fetcher.progress(), host.fetcher.troubles) == ({}, {})
    assert unfinished(tmp_path) == []


async def test_what_has_no_relative_comes_compressed(tmp_path: Path, blobs: LocalBlobs) -> None:
    text = b"the same again and again. " * 4000
    packed = delta_of(b"", text)
    async with fetching_host(tmp_path, blobs, served=(packed,)) as host:
        host.link.delta_answers = [offers(offer(packed, new=text, base=()))]
        assert await host.attempt(text, bases={text: ((),)}) == ""
        assert host.content(text) == text
        assert host.link.sent_bytes == len(packed) < 1000


async def test_of_several_blobs_each_goes_its_way_and_the_sum_is_told(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    other, tiny = noise(20_000, 7), b"tiny"
    async with fetching_host(tmp_path, memory, OLD, served=(DELTA, other, tiny)) as host:
        host.link.delta_answers = [offers(offer())]
        assert await host.attempt(other, NEW, tiny, bases={NEW: (BASE, ()), other: ((),)}) == ""
        assert [host.content(one) for one in (other, NEW, tiny)] == [other, NEW, tiny]
        asked = [one.target for one in host.link.delta_requests[0].wanted]
        assert asked == [digest_of(NEW), digest_of(other)], "the largest first, and none without a question"
        full = len(other) + len(NEW) + len(tiny)
        assert host.fetched == [Fetched(3, 1, len(other) + len(DELTA) + len(tiny), full)]
        assert host.link.sent_bytes == host.fetched[0].size_bytes


async def test_a_delta_that_is_cut_off_is_resumed_at_the_byte(tmp_path: Path, blobs: LocalBlobs) -> None:
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer())]
        host.link.cuts = [1500, 0, 2000]
        for _ in range(3):
            assert "cut off" in await host.attempt_new()
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert host.link.opened == [(digest_of(DELTA), at) for at in (0, 1500, 1500, 3500)]
        assert host.link.sent_bytes == len(DELTA)
        assert host.fetched == [Fetched(1, 1, len(DELTA), len(NEW))]


async def test_a_blob_that_is_nearly_here_is_finished_as_it_is(tmp_path: Path, blobs: LocalBlobs) -> None:
    blobs.append(digest_of(NEW), [NEW[:-2000]], offset=0, limit=len(NEW))
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer())]
        assert await host.attempt_new() == ""
        assert host.link.sent_bytes == 2000
        assert host.fetched[0].by_delta == 0


async def test_a_begun_blob_is_left_for_a_delta_that_costs_less_and_leaves_nothing(
    tmp_path: Path, blobs: LocalBlobs
) -> None:
    blobs.append(digest_of(NEW), [NEW[:20_000]], offset=0, limit=len(NEW))
    async with fetching_host(tmp_path, blobs, OLD) as host:
        host.link.delta_answers = [offers(offer())]
        assert await host.attempt_new() == ""
        assert host.link.sent_bytes == len(DELTA)
        assert blobs.partial_size(digest_of(NEW)) == 0
    assert unfinished(tmp_path) == []


# ── bad deltas ───────────────────────────────────────────────────────────────────────────────────────────

GARBAGE = noise(3000, 5)
OTHER = noise(60_000, 6)
BAD: dict[str, bytes] = {
    "garbage": GARBAGE,
    "empty of sense": DELTA[:100] + bytes(len(DELTA) - 100),
    "of another base": delta_of(OLD[:-1] + b"x", NEW),
    "to another target": delta_of(OLD, NEW[:-1] + b"x"),
    "truncated": DELTA[:-10],
    "longer": DELTA + b"x",
    "of nothing": PACKED[:2000],
}


@pytest.mark.rule("DELTA-4")
@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
async def test_a_bad_delta_costs_its_bytes_once_and_the_blob_comes_in_full(
    tmp_path: Path, blobs: LocalBlobs, bad: bytes
) -> None:
    async with fetching_host(tmp_path, blobs, OLD, served=(NEW, bad)) as host:
        host.link.delta_answers = [offers(offer(bad))]
        assert await host.attempt_new() == "", "it is no failure: nothing has to wait"
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(bad) + len(NEW)
        assert host.link.opened == [(digest_of(bad), 0), (digest_of(NEW), 0)]
        assert host.fetched == [Fetched(1, 0, len(NEW), len(NEW))]
        assert host.content(bad) is None
        assert host.content(OLD) == OLD, "the base is as it was"
    assert unfinished(tmp_path) == []


LIES: dict[str, tuple[bytes, DeltaAvailable]] = {
    "other bytes": (GARBAGE, offer(size_bytes=len(GARBAGE))),
    "more bytes": (DELTA, offer(size_bytes=len(DELTA) - 1)),
    "more than was said": (DELTA + noise(9000), offer()),
    "fewer bytes": (DELTA, offer(size_bytes=len(DELTA) + 1)),
    "evicted": (b"", offer()),
}


@pytest.mark.rule("DELTA-4")
@pytest.mark.parametrize(("sent", "said"), LIES.values(), ids=list(LIES))
async def test_a_delta_that_is_not_what_was_said_is_left_for_another_way(
    tmp_path: Path, blobs: LocalBlobs, sent: bytes, said: DeltaAvailable
) -> None:
    async with fetching_host(tmp_path, blobs, OLD, served=(NEW,)) as host:
        if sent:
            host.link.contents[said.delta] = sent
        host.link.delta_answers = [offers(said)]
        # What ends early might have been cut off: that is seen at the next attempt.
        assert "" in [await host.attempt_new(), await host.attempt_new()]
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes <= len(sent) + len(NEW)
        assert host.fetched[-1].by_delta == 0
    assert unfinished(tmp_path) == []


@pytest.mark.rule("DELTA-4")
async def test_after_two_bad_deltas_no_more_are_asked_for(tmp_path: Path, blobs: LocalBlobs) -> None:
    bad = [noise(2000, seed) for seed in range(20, 30)]
    async with fetching_host(tmp_path, blobs, OLD, served=(NEW, DELTA, *bad)) as host:
        host.link.delta_answers = [*(offers(offer(one)) for one in bad), offers(offer())]
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert len(host.link.delta_requests) == 2
        assert host.link.sent_bytes == 2 * 2000 + len(NEW)
        more = OLD[:100] + noise(300, 8) + OLD[100:]
        delta = delta_of(OLD, more)
        host.link.contents[digest_of(delta)] = delta
        host.link.delta_answers = [offers(offer(delta, new=more))]
        assert await host.attempt(more, bases={more: (BASE, ())}) == ""
        assert host.fetched[-1] == Fetched(1, 1, len(delta), len(more)), "other blobs still come by delta"


@pytest.mark.rule("DELTA-4")
async def test_after_one_bad_delta_a_good_one_is_taken(tmp_path: Path, blobs: LocalBlobs) -> None:
    async with fetching_host(tmp_path, blobs, OLD, served=(NEW, DELTA, GARBAGE)) as host:
        host.link.delta_answers = [offers(offer(GARBAGE, base=())), offers(offer(GARBAGE, base=()), offer())]
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(GARBAGE) + len(DELTA)
        assert host.fetched == [Fetched(1, 1, len(DELTA), len(NEW))]


@pytest.mark.rule("DELTA-4")
async def test_a_base_that_was_damaged_on_disk_is_removed_and_the_blob_comes_in_full(
    tmp_path: Path, blobs: LocalBlobs
) -> None:
    async with fetching_host(tmp_path, blobs, OLD) as host:
        path = blobs.path(digest_of(OLD))
        path.chmod(0o644)
        path.write_bytes(bytes(len(OLD)))
        host.link.delta_answers = [offers(offer())]
        assert await host.attempt_new() == ""
        assert host.content(NEW) == NEW
        assert not blobs.has(digest_of(OLD))
        assert host.link.sent_bytes == len(DELTA) + len(NEW)
        assert host.link.delta_requests[-1].wanted[0].bases == ((),), "what is not here is not asked about"


@pytest.mark.rule("DELTA-4")
async def test_a_base_that_is_gone_is_neither_asked_about_nor_waited_for(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    answer = DeltaAnswer(available=(offer(),), coming=soon(0.0).coming)
    async with fetching_host(tmp_path, memory) as host:
        host.link.delta_answers = [answer]
        assert await host.attempt(NEW, bases={NEW: (BASE,)}) == ""
        assert host.link.delta_requests == []
        assert host.link.sent_bytes == len(NEW)


async def test_an_answer_to_what_was_not_asked_is_left_aside(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    stray = delta_of(OTHER, NEW)
    strays = (
        offer(stray, base=(digest_of(OTHER),)),  # held, but not asked about
        offer(base=(*BASE, *BASE)),
        offer(new=OTHER),
    )
    async with fetching_host(tmp_path, memory, OLD, OTHER, served=(NEW, DELTA, stray)) as host:
        host.link.delta_answers = [DeltaAnswer(available=strays, coming=soon(0.0, new=OTHER).coming)]
        assert await host.attempt_new() == ""
        assert host.link.opened == [(digest_of(NEW), 0)]


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────

SLOW = 2000.0
"""Bytes a second: half of NEW takes a bit more than 16 s."""


async def learn_rate(host: FetchingHost) -> None:
    """Let the host see how slow its link is."""
    seen = noise(70_000, 30)
    host.link.rate = SLOW
    host.link.contents[digest_of(seen)] = seen
    assert await host.attempt(seen, release="first") == ""
    host.link.sent_bytes, host.fetched = 0, []


@pytest.mark.rule("DELTA-5")
async def test_a_delta_that_comes_soon_is_waited_for_and_taken(tmp_path: Path, blobs: LocalBlobs) -> None:
    async with fetching_host(tmp_path, blobs, OLD) as host:
        await learn_rate(host)
        host.link.delta_answers = [soon(6.0), soon(3.0), offers(offer())]
        assert await host.attempt_new() == "waiting for a delta, for about 6 s"
        (progress,) = host.fetcher.progress().values()
        assert (progress.done_bytes, progress.total_bytes) == (0, len(NEW))
        assert await host.go_on(6) == "waiting for a delta, for about 3 s"
        assert await host.go_on(3) == ""
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(DELTA)
        assert host.fetched == [Fetched(1, 1, len(DELTA), len(NEW))]


@pytest.mark.rule("DELTA-5")
@pytest.mark.parametrize("said_s", (0.0, 0.5, 4.0, 15.0))
async def test_a_hub_that_always_says_soon_holds_no_host_for_longer_than_a_delta_saves(
    tmp_path: Path, memory: MemoryLocalBlobs, said_s: float
) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        await learn_rate(host)
        host.link.delta_answers = [soon(said_s)]
        trouble, waited_s = await host.attempt_new(), 0.0
        while trouble:
            assert "waiting for a delta" in trouble
            await host.until(lambda: host.clock.sleepers > 0)
            wait_s = host.clock.monotonic()
            changes = host.changes
            while host.changes == changes and host.clock.sleepers:
                host.clock.advance(0.25)
                waited_s += 0.25
                await asyncio.sleep(0)
            assert host.clock.monotonic() - wait_s < 20
            await host.until(lambda changes=changes: host.changes > changes)  # type: ignore[misc]
            trouble = host.trouble
        assert host.content(NEW) == NEW
        assert host.link.sent_bytes == len(NEW)
        assert 0 < waited_s <= 0.5 * len(NEW) / SLOW + 1


@pytest.mark.rule("DELTA-5")
async def test_failures_between_do_not_let_it_wait_for_longer(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        await learn_rate(host)
        gone = Unavailable("link.unreachable", "cannot reach the hub")
        host.link.delta_answers = [soon(10.0), gone, soon(10.0)]
        assert "waiting for a delta" in await host.attempt_new()
        assert await host.go_on(10) == gone.message
        assert await host.attempt_new() == "", "10 s were waited for, and 10 more would be too much"
        assert host.link.sent_bytes == len(NEW)


@pytest.mark.rule("DELTA-5")
async def test_on_a_fast_link_nobody_waits(tmp_path: Path, memory: MemoryLocalBlobs) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        host.link.delta_answers = [soon(0.0)]
        assert await host.attempt_new() == ""
        assert host.link.sent_bytes == len(NEW)


async def test_what_needs_no_waiting_comes_while_a_delta_is_made(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    other = noise(5000, 40)
    async with fetching_host(tmp_path, memory, OLD, served=(NEW, DELTA, other)) as host:
        await learn_rate(host)
        host.link.delta_answers = [soon(8.0), soon(6.0), offers(offer())]
        assert "waiting for a delta" in await host.attempt(NEW, other, bases={NEW: (BASE, ())})
        assert host.content(other) == other
        assert await host.go_on(6) == ""
        assert host.fetched == [Fetched(2, 1, len(DELTA) + len(other), len(NEW) + len(other))]


# ── an upstream in trouble, and limits ───────────────────────────────────────────────────────────────────


@pytest.mark.rule("DELTA-4")
@pytest.mark.parametrize(
    "error",
    (
        Rejected("body.too_large", "too large"),
        Missing("http.404", "no such path"),
        Bug("internal", "an error of the hub"),
        Unavailable("blobs.failed", "its disk fails"),
        Unavailable("link.strange_answer", "an answer of a newer version"),
        Conflict("x", "y"),
    ),
    ids=lambda error: str(error.code),
)
async def test_an_upstream_that_cannot_answer_about_deltas_still_gives_blobs(
    tmp_path: Path, memory: MemoryLocalBlobs, error: SkerryError
) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        host.link.delta_answers = [error]
        assert await host.attempt_new() == ""
        assert host.link.sent_bytes == len(NEW)


async def test_a_link_that_fails_is_tried_again_and_the_delta_taken_then(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        host.tokens = ["old", "good"]
        gone = Unavailable("link.unreachable", "cannot reach the hub")
        host.link.delta_answers = [gone, offers(offer())]
        assert "expired" in await host.attempt_new()
        assert host.tokens == ["good"]
        assert await host.attempt_new() == gone.message
        assert await host.attempt_new() == ""
        assert host.link.sent_bytes == len(DELTA)
        assert host.link.opened == [(digest_of(DELTA), 0)]


async def test_without_leave_to_fetch_nothing_is_asked(tmp_path: Path, memory: MemoryLocalBlobs) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        host.tokens = [""]
        assert "waiting for the upstream's leave" in await host.attempt_new()
        assert host.link.delta_requests == []


async def test_who_is_held_back_does_not_spend_the_link_on_questions(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    async with fetching_host(tmp_path, memory, OLD) as host:
        host.limiter.follow(SitePolicy(link=LinkPolicy(per_day=0)), {})
        assert await host.attempt_new() != ""
        host.limiter.follow(SitePolicy(), {})

        host.link.gate = threading.Barrier(2)
        urgent = noise(1000, 50)
        host.link.contents[digest_of(urgent)] = urgent
        host.want(urgent, release="urgent", priority=Priority.URGENT)
        await host.until(lambda: host.link.open == 1)
        assert "more urgent" in await host.attempt_new()
        assert host.link.delta_requests == []
        host.link.gate.abort()


async def test_a_question_is_bounded_and_the_largest_blobs_are_in_it(
    tmp_path: Path, memory: MemoryLocalBlobs
) -> None:
    contents = [f"{number:<9}".encode() * (number + 1) for number in range(MAX_DELTA_QUESTIONS + 5)]
    async with fetching_host(tmp_path, memory, served=tuple(contents)) as host:
        host.link.latency_s = 0
        assert await host.attempt(*contents, bases=dict.fromkeys(contents, ((),))) == ""
        (request,) = host.link.delta_requests
        expected = [digest_of(content) for content in reversed(contents)][:MAX_DELTA_QUESTIONS]
        assert [one.target for one in request.wanted] == expected
