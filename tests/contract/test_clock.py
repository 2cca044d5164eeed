"""What every Clock keeps: UTC, a monotonic count that never falls, and sleep by that count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from skerry.adapters.system_clock import SystemClock
from skerry.ports.clock import Clock
from skerry.testing.clock import SimulatedClock, settle

KINDS: dict[str, Callable[[], Clock]] = {"system": SystemClock, "simulated": SimulatedClock}


@pytest.fixture(params=KINDS)
def clock(request: pytest.FixtureRequest) -> Clock:
    return KINDS[str(request.param)]()


async def sleep(clock: Clock, seconds: float) -> None:
    """Sleep, and let time pass where somebody must."""
    sleeping = asyncio.create_task(clock.sleep(seconds))
    await asyncio.sleep(0)
    if isinstance(clock, SimulatedClock):
        clock.advance(seconds)
    await sleeping


def test_the_wall_clock_is_in_utc(clock: Clock) -> None:
    assert clock.now().utcoffset() == timedelta(0)


async def test_sleep_takes_monotonic_time(clock: Clock) -> None:
    before, wall = clock.monotonic(), clock.now()
    await sleep(clock, 0.02)
    assert clock.monotonic() - before >= 0.02
    assert clock.now() > wall


async def test_no_time_to_sleep_is_fine(clock: Clock) -> None:
    async with asyncio.timeout(1):
        await clock.sleep(0)
        await clock.sleep(-1)


def test_the_system_clock_is_the_machines() -> None:
    assert abs(SystemClock().now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert abs(SystemClock().monotonic() - time.monotonic()) < 5


async def test_simulated_time_stands_still() -> None:
    clock = SimulatedClock(datetime(2026, 5, 1, tzinfo=UTC))
    sleeping = asyncio.create_task(clock.sleep(10))
    await settle()
    assert clock.sleepers == 1
    clock.advance(9.5)
    await settle()
    assert not sleeping.done()
    clock.advance(0.5)
    await settle()
    assert sleeping.done()
    assert (clock.monotonic(), clock.now()) == (10.0, datetime(2026, 5, 1, 0, 0, 10, tzinfo=UTC))
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


async def test_a_jump_moves_only_the_wall_clock() -> None:
    clock = SimulatedClock()
    start = clock.now()
    sleeping = asyncio.create_task(clock.sleep(60))
    await settle()
    clock.jump(timedelta(days=-3))
    await settle()
    assert clock.now() == start - timedelta(days=3)
    assert clock.monotonic() == 0
    assert not sleeping.done()
    clock.advance(60)
    await sleeping
    assert clock.now() == start - timedelta(days=3) + timedelta(seconds=60)


async def test_a_loop_that_sleeps_again_wakes_each_time() -> None:
    clock = SimulatedClock()
    woken: list[float] = []

    async def loop(period_s: float) -> None:
        while True:
            await clock.sleep(period_s)
            woken.append(clock.monotonic())

    tasks = [asyncio.create_task(loop(3)), asyncio.create_task(loop(2))]
    await clock.elapse(7)
    assert woken == [2, 3, 4, 6, 6]
    assert clock.monotonic() == 7
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clock.sleepers == 0
    await clock.elapse(100)
    assert len(woken) == 5
