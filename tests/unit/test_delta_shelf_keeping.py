"""Which deltas the hub keeps: those used last, within their room, whatever fails and wherever it crashes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from skerry.adapters.object_blobs import ObjectBlobs
from skerry.hub.deltas import (
    RETRY_S,
    DeltaLimits,
)
from skerry.kit.errors import Unavailable
from skerry.testing.faults import FaultPlan, FaultyBlobs, PowerCut
from skerry.testing.memory import MemoryBlobs
from tests.unit.delta_shelf_world import (
    DELTA_BYTES,
    available,
    coming,
    name,
    pair,
    question,
    world,
)

pytestmark = pytest.mark.delivery

NOTHING = ()


def base(number: int) -> tuple[str, ...]:
    return (name(number),)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", (Unavailable("delta.too_slow", "too slow"), ValueError("a bug")))
async def test_what_failed_is_left_alone_for_an_hour_while_others_go_on(
    tmp_path: Path, error: Exception
) -> None:
    async with world(tmp_path) as made, made.running():
        made.maker.errors[pair(0, 1)] = error
        await made.ask(question(1, base(0)), question(2, base(0)))
        await made.until_known([pair(0, 2)])
        assert coming(await made.ask(question(1, base(0), NOTHING))) == [pair(None, 1)]
        await made.until_known([pair(None, 1)])
        made.clock.advance(RETRY_S - 1)
        assert coming(await made.ask(question(1, base(0)))) == []
        await made.shelf.prepare([pair(0, 1)])
        assert await made.shelf.sizes([pair(0, 1)]) == {}
        del made.maker.errors[pair(0, 1)]
        made.clock.advance(1)
        assert coming(await made.ask(question(1, base(0)))) == [pair(0, 1)]
        await made.until_known([pair(0, 1)])


async def test_a_record_whose_delta_is_gone_is_cleared_and_it_is_made_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.running():
        await made.ask(question(1, base(0)))
        await made.until_known([pair(0, 1)])
        await made.deltas.remove(made.maker.made[0].digest)
        answer = await made.ask(question(1, base(0)))
        assert (available(answer), coming(answer)) == ([], [pair(0, 1)])
        await made.until_known([pair(0, 1)])
        assert available(await made.ask(question(1, base(0)))) == [pair(0, 1)]
        assert len(made.maker.begun) == 2


async def test_a_delta_that_was_cut_short_on_the_disk_counts_as_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.deltas = on_disk = ObjectBlobs.in_directory(tmp_path / "deltas")
        made.restart()
        async with made.running():
            await made.ask(question(1, base(0)))
            await made.until_known([pair(0, 1)])
            file = on_disk.file(made.maker.made[0].digest)
            assert file is not None
            os.truncate(file, DELTA_BYTES - 1)
            assert coming(await made.ask(question(1, base(0)))) == [pair(0, 1)]
            await made.until_known([pair(0, 1)])
            assert available(await made.ask(question(1, base(0)))) == [pair(0, 1)]
            assert await on_disk.size(made.maker.made[1].digest) == DELTA_BYTES


async def test_what_was_made_is_known_after_a_restart_and_counts(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        joined = (name(0), name(5)), name(6)
        async with made.running():
            await made.ask(question(1, base(0)), question(2, NOTHING), question(6, joined[0]))
            await made.until_known([pair(0, 1), pair(None, 2), joined])
        made.limits = DeltaLimits(disk_bytes=3 * DELTA_BYTES)
        made.restart()
        async with made.running():
            answer = await made.ask(question(1, base(0)), question(6, joined[0]))
            assert available(answer) == [pair(0, 1), joined]
            await made.ask(question(3, base(0)))
            await made.until_known([pair(0, 3)])
            await made.until(lambda: len(made.recorded()) == 3)
        assert made.recorded().keys() == {pair(0, 1), joined, pair(0, 3)}, (
            "what was not used since goes first"
        )
        assert len(made.maker.begun) == 4


# ── room ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_deltas_that_were_not_used_for_longest_make_room(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.limits = DeltaLimits(disk_bytes=3 * DELTA_BYTES)
        made.restart()
        async with made.running():
            for number in (1, 2, 3):
                await made.ask(question(number, base(0)))
                await made.until_known([pair(0, number)])
            assert available(await made.ask(question(1, base(0)))) == [pair(0, 1)]  # used just now
            for number in (4, 5):
                await made.ask(question(number, base(0)))
                await made.until_known([pair(0, number)])
                await made.until(lambda: len(made.recorded()) == 3)
                assert sum([await made.deltas.size(one) or 0 for one in await made.kept()]) <= 3 * DELTA_BYTES
        assert made.recorded().keys() == {pair(0, 1), pair(0, 4), pair(0, 5)}
        assert set(made.recorded().values()) == await made.kept()


async def test_a_delta_larger_than_all_room_is_not_kept_and_not_made_again_and_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.limits = DeltaLimits(disk_bytes=DELTA_BYTES)
        made.restart()
        async with made.running():
            await made.ask(question(1, base(0)))
            await made.until_known([pair(0, 1)])
            made.maker.sizes[pair(0, 2)] = DELTA_BYTES + 1
            for _ in range(3):
                await made.ask(question(2, base(0)))
                await made.until_known([pair(0, 2)])
            assert available(await made.ask(question(1, base(0)), question(2, base(0)))) == [pair(0, 1)]
        assert len(made.maker.begun) == 2


async def test_a_delta_that_goes_while_it_is_looked_up_is_no_error(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        during: list[Callable[[], Awaitable[None]]] = []

        class Looked(MemoryBlobs):
            async def size(self, digest: str) -> int | None:
                found = await super().size(digest)
                if during:
                    await during.pop()()
                return found

        made.deltas = Looked()
        made.limits = DeltaLimits(disk_bytes=DELTA_BYTES)
        made.restart()

        async def push_out() -> None:
            await made.shelf.prepare([pair(0, 2)])
            await made.until(lambda: made.recorded().keys() == {pair(0, 2)})

        async with made.running():
            await made.ask(question(1, base(0)))
            await made.until_known([pair(0, 1)])
            during.append(push_out)
            answer = await made.ask(question(1, base(0)))
            assert (available(answer), coming(answer)) == ([], [pair(0, 1)])
            await made.until(lambda: made.recorded().keys() == {pair(0, 1)})


@pytest.mark.parametrize("when", ("before", "after"))
@pytest.mark.parametrize("method", ("adopt", "remove"))
async def test_a_crash_leaves_no_delta_that_nobody_counts(tmp_path: Path, method: str, when: str) -> None:
    async with world(tmp_path) as made:
        inner, plan = MemoryBlobs(), FaultPlan()
        made.deltas = FaultyBlobs(inner, plan)
        made.limits = DeltaLimits(disk_bytes=DELTA_BYTES)
        made.restart()
        async with made.running():
            await made.ask(question(1, base(0)))
            await made.until_known([pair(0, 1)])
        plan.kill(method, when="before" if when == "before" else "after")
        await made.ask(question(2, base(0)))
        with pytest.raises(BaseExceptionGroup) as caught:
            await made.shelf.run_forever()
        assert caught.group_contains(PowerCut)
        made.deltas = inner
        counted = {delta for delta in made.recorded().values() if delta}
        assert await made.kept() <= counted

        made.restart()
        async with made.running():
            for number in (1, 2, 3):
                await made.ask(question(number, base(0)))
                await made.until_known([pair(0, number)])
            await made.until(lambda: len(made.recorded()) == 1)
        assert await made.kept() == set(made.recorded().values()) != set()


async def test_a_full_disk_keeps_no_record_in_mind_and_it_is_tried_later(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        plan = FaultPlan().fail("adopt", Unavailable("disk.full", "no room"))
        made.deltas = FaultyBlobs(MemoryBlobs(), plan)
        made.restart()
        async with made.running():
            await made.ask(question(1, base(0)), question(2, base(0)))
            await made.until_known([pair(0, 2)])
            answer = await made.ask(question(1, base(0)))
            assert (available(answer), coming(answer)) == ([], [])
            assert not made.maker.made[0].file.exists()
            made.clock.advance(RETRY_S)
            await made.ask(question(1, base(0)))
            await made.until_known([pair(0, 1)])
            assert available(await made.ask(question(1, base(0)))) == [pair(0, 1)]
