"""Chores: once at a time, tried again with pauses, told once."""

from __future__ import annotations

import asyncio

from skerry.agent.chores import Chores
from skerry.kit.errors import Rejected, SkerryError, Unavailable
from skerry.testing.clock import SimulatedClock, settle


class Work:
    """Counts how often it is begun, and fails as long as it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.error: SkerryError | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> None:
        self.begun += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error


async def test_a_chore_is_done_once_however_often_it_is_asked_for() -> None:
    chores, work = Chores("test", SimulatedClock()), Work()
    work.may_end.clear()
    for _ in range(5):
        chores.want("a", work)
        await settle()
    assert work.begun == 1
    assert chores.under_way
    work.may_end.set()
    await settle()
    assert not chores.under_way


async def test_a_chore_that_fails_waits_longer_each_time_and_is_told_once() -> None:
    clock, work, told = SimulatedClock(), Work(), list[SkerryError]()
    chores = Chores("test", clock)
    chores.on_trouble = told.append
    work.error = Unavailable("disk.full", "no room")
    for _ in range(600):
        chores.want("a", work)
        await clock.elapse(1.0)
    assert 10 <= work.begun <= 30
    assert chores.troubles == {"a": "no room"}
    assert len(told) == 1
    work.error = None
    for _ in range(61):
        chores.want("a", work)
        await clock.elapse(1.0)
    assert chores.troubles == {}


async def test_what_can_never_be_done_is_told_apart_and_forgotten_with_its_key() -> None:
    chores, work = Chores("test", SimulatedClock()), Work()
    work.error = Rejected("image.malformed", "no image")
    chores.want("a", work)
    await settle()
    assert chores.refused == {"a": "no image"}
    chores.forget(frozenset())
    assert chores.refused == chores.troubles == {}


async def test_a_bug_in_one_chore_is_a_trouble_and_no_more() -> None:
    chores = Chores("test", SimulatedClock())

    async def broken() -> None:
        raise ZeroDivisionError

    chores.want("a", broken)
    await settle()
    assert "ZeroDivisionError" in chores.troubles["a"]


async def test_forgetting_ends_what_is_under_way() -> None:
    chores, work = Chores("test", SimulatedClock()), Work()
    work.may_end.clear()
    chores.want("a", work)
    await settle()
    chores.forget(frozenset())
    await settle()
    assert not chores.under_way
    await chores.close()
