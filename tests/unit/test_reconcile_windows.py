"""The planner where releases are switched in windows only: made ready ahead, and what has begun is finished."""

from __future__ import annotations

import pytest

from tests.unit.host_world import APPLICATION, World

pytestmark = pytest.mark.delivery

WHY = "ready; waiting for the site's window at 22:00 (Europe/Zurich)"


def settle(world: World, steps: int = 60) -> None:
    for _ in range(steps):
        world.step()


def close(world: World, why: str = WHY) -> None:
    """Say what a switch has to wait for."""
    world.window = why


def on_a() -> World:
    world = World({"a": "healthy", "b": "healthy"})
    world.want("a")
    settle(world)
    world.want("b")
    return world


@pytest.mark.rule("LINK-4")
def test_outside_its_window_an_update_is_made_ready_and_takes_nothing_over() -> None:
    world = on_a()
    close(world)
    settle(world)
    record = world.records[APPLICATION]
    assert (record.good, record.candidate, record.phase) == ("a", "b", "waiting-window")
    assert "b" in world.laid_out
    assert world.serving() == {("a", "front"), ("a", "back")}
    world.crash(next(iter(world.alive())))
    settle(world)
    assert world.serving() == {("a", "front"), ("a", "back")}, "what runs is kept running meanwhile"

    close(world, "")
    settle(world)
    assert world.serving() == {("b", "front"), ("b", "back")}


@pytest.mark.rule("LINK-4")
def test_an_urgent_release_is_switched_outside_the_window() -> None:
    world = on_a()
    close(world)
    settle(world)
    assert world.records[APPLICATION].phase == "waiting-window"
    world.urgent = True
    settle(world)
    assert world.records[APPLICATION].good == "b"


@pytest.mark.rule("LINK-4")
@pytest.mark.parametrize("steps", (1, 2, 4, 6, 8))
def test_a_switch_that_has_begun_is_finished_after_the_window(steps: int) -> None:
    world = on_a()
    while world.records[APPLICATION].phase != "starting":
        world.step()
    settle(world, steps)
    close(world)
    settle(world)
    assert world.records[APPLICATION].good == "b"


def test_a_first_release_interrupts_nothing_and_waits_for_no_window() -> None:
    world = World({"a": "healthy"})
    world.want("a")
    close(world)
    settle(world)
    assert world.records[APPLICATION].good == "a"
