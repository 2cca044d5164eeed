"""The hub's shelf of deltas: what it answers, and in which order it has deltas made."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from skerry.adapters.delta_workers import DeltaWorkers
from skerry.hub.deltas import (
    MAX_QUEUED,
    MAX_QUEUED_BY_HOST,
    DeltaLimits,
    DeltaShelf,
)
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing
from skerry.spec.carrier import DeltaQuestion
from skerry.testing.clock import settle
from skerry.testing.memory import MemoryBlobs
from tests.unit.delta_files_of import applied, noise
from tests.unit.delta_shelf_world import (
    DELTA_BYTES,
    TARGET_BYTES,
    available,
    coming,
    name,
    pair,
    question,
    target,
    world,
)

pytestmark = pytest.mark.delivery

NOTHING = ()


def base(number: int) -> tuple[str, ...]:
    return (name(number),)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("DELTA-5")
async def test_nobody_waits_for_an_answer_and_what_was_made_is_there_the_next_time(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as made, made.running():
        answer = await made.ask(question(1, base(0), NOTHING))
        assert (available(answer), coming(answer)) == ([], [pair(0, 1)])
        again = await made.ask(question(1, base(0), NOTHING))
        assert (available(again), coming(again)) == ([], [pair(0, 1)])
        made.maker.let()
        await made.until_known([pair(0, 1)])
        (one,) = (await made.ask(question(1, base(0), NOTHING))).available
        assert (one.target, one.base, one.size_bytes) == (name(1), base(0), DELTA_BYTES)
        assert one.delta == made.maker.made[0].digest
        assert made.maker.begun == [pair(0, 1)]
        assert not made.maker.made[0].file.exists()


async def test_what_promises_less_is_not_made_when_the_better_is_there(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.running():
        await made.ask(question(1, base(0), NOTHING))
        await made.until_known([pair(0, 1)])
        answer = await made.ask(question(1, base(0), NOTHING))
        assert (available(answer), coming(answer)) == ([pair(0, 1)], [])
        await made.shelf.prepare([pair(None, 1)])
        await made.until_known([pair(None, 1)])
        both = await made.ask(question(1, base(0), NOTHING))
        assert available(both) == [pair(0, 1), pair(None, 1)], "but told, since it may be smaller"
        while_made = await made.ask(question(1, base(2), NOTHING, base(3)))
        assert (available(while_made), coming(while_made)) == ([pair(None, 1)], [pair(2, 1)])


async def test_of_what_the_hub_does_not_have_nothing_comes(tmp_path: Path) -> None:
    stranger = (digest_of(b"never pushed"),)
    async with world(tmp_path) as made:
        answer = await made.ask(
            DeltaQuestion(target=stranger[0], bases=(base(0), NOTHING)),
            question(1, stranger),
            question(2, (*base(0), *stranger), NOTHING),
        )
        assert (available(answer), coming(answer)) == ([], [pair(None, 2)])
        await made.shelf.prepare([(stranger, name(3)), (base(0), stranger[0])])
        assert await made.shelf.sizes([(stranger, name(3)), (base(0), stranger[0])]) == {}


async def test_a_delta_that_saves_little_is_remembered_and_the_next_alternative_is_offered(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as made:
        made.maker.sizes[pair(0, 1)] = TARGET_BYTES * 9 // 10 + 1
        asked = question(1, base(0), NOTHING)
        async with made.running():
            await made.ask(asked)
            await made.until_known([pair(0, 1)])
            assert await made.shelf.sizes([pair(0, 1)]) == {pair(0, 1): TARGET_BYTES}
            answer = await made.ask(asked)
            assert (available(answer), coming(answer)) == ([], [pair(None, 1)])
            await made.until_known([pair(None, 1)])
            assert available(await made.ask(asked)) == [pair(None, 1)]
        made.restart()
        async with made.running():
            answer = await made.ask(asked)
            assert (available(answer), coming(answer)) == ([pair(None, 1)], [])
        assert made.maker.begun == [pair(0, 1), pair(None, 1)], "it is not tried again"
        assert await made.kept() == {made.maker.made[1].digest}


async def test_a_hub_without_workers_offers_what_it_has_and_makes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        async with made.running():
            await made.ask(question(1, base(0)))
            await made.until_known([pair(0, 1)])
        made.limits = DeltaLimits(workers=0)
        made.restart()
        answer = await made.ask(question(1, base(0)), question(2, base(0)))
        assert (available(answer), coming(answer)) == ([pair(0, 1)], [])


async def test_deltas_and_blobs_are_read_at_one_place(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.running():
        await made.ask(question(1, base(0)))
        await made.until_known([pair(0, 1)])
        delta, readable = made.maker.made[0].digest, made.shelf.readable
        assert (await readable.size(delta), await readable.size(name(1))) == (DELTA_BYTES, TARGET_BYTES)
        for digest, content in ((name(1), target(1)), (delta, repr(pair(0, 1)).encode())):
            found = b"".join([chunk async for chunk in readable.read(digest, start=3, end=50)])
            assert found == content[3:50]
        assert await readable.size(digest_of(b"other")) is None
        with pytest.raises(Missing):
            _ = [chunk async for chunk in readable.read(digest_of(b"other"))]


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_hosts_ask_for_goes_before_what_is_foreseen(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.shelf.prepare([pair(0, 1), pair(0, 2), pair(0, 3)])
        await made.ask(question(4, base(0)), question(2, base(0)))
        async with made.running():
            await made.until_known([pair(0, number) for number in (1, 2, 3, 4)])
        assert made.maker.begun == [pair(0, 4), pair(0, 2), pair(0, 1), pair(0, 3)]


async def test_one_host_cannot_fill_the_queue(tmp_path: Path) -> None:
    async with world(tmp_path, contents=200) as made:
        many = [question(number, base(0)) for number in range(1, 200)]
        assert len(coming(await made.ask(*many))) == MAX_QUEUED_BY_HOST
        assert len(coming(await made.ask(*many[100:]))) == 0
        others = await made.ask(*many[100:], host="other")
        assert len(coming(others)) == MAX_QUEUED_BY_HOST
        assert len(coming(await made.ask(*many[:10]))) == 10, "what is queued comes for it, too"
        async with made.running():
            await made.until_known([pair(0, number) for number in range(1, MAX_QUEUED_BY_HOST + 1)])
        assert len(coming(await made.ask(*many[70:100]))) == 30, "and when they were made it may go on"


async def test_both_queues_are_bounded(tmp_path: Path) -> None:
    async with world(tmp_path, contents=50) as made:
        pairs = [pair(one, other) for one in range(50) for other in range(50) if one != other]
        assert len(pairs) > MAX_QUEUED + 100
        await made.shelf.prepare(pairs)
        assert len(await made.shelf.sizes(pairs)) == MAX_QUEUED
        made.restart()
        told = 0
        for number in range(0, len(pairs), 60):
            some = [DeltaQuestion(target=to, bases=(of,)) for of, to in pairs[number : number + 60]]
            told += len(coming(await made.ask(*some, host=f"host-{number}")))
        assert told == MAX_QUEUED
        await made.shelf.prepare([pair(None, 1)])
        assert pair(None, 1) in await made.shelf.sizes([pair(None, 1)]), "one queue does not fill the other"


class SlowBlobs(MemoryBlobs):
    """Blobs that take a while to say whether they are there."""

    async def size(self, digest: str) -> int | None:
        await asyncio.sleep(0)
        return await super().size(digest)


async def test_what_many_ask_for_at_a_time_is_made_once(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.limits = DeltaLimits(workers=2)
        made.sources = SlowBlobs()
        made.maker.gated = True
        await made.fill()
        made.restart()
        async with made.running():
            await made.ask()  # the store is read, so that nobody waits for that
            asked = [made.ask(question(1, base(0)), host=f"host-{number}") for number in range(20)]
            answers = await asyncio.gather(*asked, made.shelf.prepare([pair(0, 1)]))
            assert all(coming(answer) == [pair(0, 1)] for answer in answers[:-1] if answer)
            await settle()
            made.maker.let(3)
            await made.until_known([pair(0, 1)])
            await made.shelf.prepare([pair(0, 2)])
            made.maker.let()
            await made.until_known([pair(0, 2)])
        assert made.maker.begun == [pair(0, 1), pair(0, 2)]


async def test_what_another_host_had_begun_meanwhile_is_not_begun_again(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as made:
        during: list[Callable[[], Awaitable[object]]] = []

        class Looked(MemoryBlobs):
            async def size(self, digest: str) -> int | None:
                if during:
                    await during.pop()()
                return await super().size(digest)

        async def begin() -> None:
            await made.ask(question(1, base(0)), host="faster")
            await made.until(lambda: made.maker.begun == [pair(0, 1)])

        made.sources, made.limits = Looked(), DeltaLimits(workers=2)
        await made.fill()
        made.restart()
        async with made.running():
            during.append(begin)
            assert coming(await made.ask(question(1, base(0)))) == [pair(0, 1)]
            made.maker.let(2)
            await made.until_known([pair(0, 1)])
            await made.ask(question(2, base(0)))
            await made.until(lambda: len(made.maker.begun) == 2)
            assert made.maker.begun == [pair(0, 1), pair(0, 2)]


async def test_two_workers_make_two_at_a_time(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as made:
        made.limits = DeltaLimits(workers=2)
        made.restart()
        await made.ask(*(question(number, base(0)) for number in (1, 2, 3)))
        async with made.running():
            await made.until(lambda: len(made.maker.begun) == 2)
            await settle()
            assert made.maker.begun == [pair(0, 1), pair(0, 2)]
            made.maker.let()
            await made.until(lambda: len(made.maker.begun) == 3)
            made.maker.let(2)
            await made.until_known([pair(0, number) for number in (1, 2, 3)])


async def test_what_was_made_while_the_others_were_looked_at_is_there_and_not_coming(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as made:

        class Lingering(MemoryBlobs):
            async def size(self, digest: str) -> int | None:
                if digest == name(2):
                    made.maker.let()
                    await made.until_known([pair(0, 1)])
                return await super().size(digest)

        made.sources = Lingering()
        await made.fill()
        made.restart()
        async with made.running():
            await made.ask(question(1, base(0)))
            answer = await made.ask(question(1, base(0)), question(2, base(0)))
            assert (available(answer), coming(answer)) == ([pair(0, 1)], [pair(0, 2)])


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_left_falls_as_time_goes_on_and_rises_with_what_is_before_it(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as made:
        large = bytes(60_000_000)
        await made.sources.put(digest_of(large), large)
        asked = DeltaQuestion(target=digest_of(large), bases=(NOTHING,))

        async def left_s() -> list[float]:
            answer = await made.ask(asked, question(1, base(0)))
            return [one.left_s for one in answer.coming]

        first, second = await left_s()
        assert 10 < first < second < 60
        async with made.running():
            await made.until(lambda: len(made.maker.begun) == 1)
            seen: list[float] = []
            for _ in range(8):
                made.clock.advance(4)
                seen += (await left_s())[:1]
            assert seen == sorted(seen, reverse=True)
            assert seen[0] < first
            assert seen[-1] == 1.0, "overdue is soon, and never nothing"
            assert made.shelf.left_s([pair(0, 1), (NOTHING, digest_of(large))]) == (await left_s())[1]
            assert made.shelf.left_s([pair(0, 5)]) == 0.0
            made.maker.let(2)
            await made.until_known([pair(0, 1)])


async def test_small_files_do_not_make_it_think_that_large_ones_take_for_ever(tmp_path: Path) -> None:
    async with world(tmp_path, gated=True) as made, made.running():
        for number in range(1, 10):
            await made.ask(question(number, base(0)))
            await made.until(lambda number=number: len(made.maker.begun) == number)  # type: ignore[misc]
            made.clock.advance(0.4)
            made.maker.let()
            await made.until_known([pair(0, number)])
        large = bytes(30_000_000)
        await made.sources.put(digest_of(large), large)
        (one,) = (await made.ask(DeltaQuestion(target=digest_of(large), bases=(NOTHING,)))).coming
        assert math.isfinite(one.left_s)
        assert 5 < one.left_s < 40
        made.maker.let()


# ── with real workers ────────────────────────────────────────────────────────────────────────────────────


async def test_real_workers_make_what_hosts_can_apply_and_nothing_of_what_saves_nothing(
    tmp_path: Path,
) -> None:
    old, new = noise(200_000, 1), noise(100_000, 1) + b"changed" + noise(200_000, 1)[100_007:]
    async with world(tmp_path) as made:
        for content in (old, new):
            await made.sources.put(digest_of(content), content)
        workers = DeltaWorkers(made.sources, tmp_path / "making", level=1)
        made.shelf = DeltaShelf(made.store, made.sources, made.deltas, workers, made.clock)
        async with made.running():
            asked = DeltaQuestion(target=digest_of(new), bases=((digest_of(old),), NOTHING))
            await made.ask(asked, DeltaQuestion(target=digest_of(new), bases=(NOTHING,)))
            await made.until_known([((digest_of(old),), digest_of(new)), (NOTHING, digest_of(new))])
            (one,) = (await made.ask(asked)).available
            assert one.base == (digest_of(old),)
            delta = b"".join([chunk async for chunk in made.shelf.readable.read(one.delta)])
        assert len(delta) == one.size_bytes < 2000
        assert applied(delta, old) == new
        assert list((tmp_path / "making").iterdir()) == []
