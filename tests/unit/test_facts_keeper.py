"""The loop that keeps facts fresh: when it looks, when it detects, what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skerry.adapters.facts import HostDetector, override_facts
from skerry.agent.facts import FactsKeeper
from skerry.spec.facts import Fact, HostFacts
from skerry.testing.clock import SimulatedClock
from skerry.testing.waiting import eventually
from tests.unit.machines import unpack


def fact(value: str | int | tuple[str, ...]) -> Fact:
    return Fact(value=value, source="test")


class World:
    """A host whose facts a test sets, and how often they were asked for."""

    def __init__(self) -> None:
        self.facts: HostFacts = {"arch": fact("x86_64")}
        self.extra: HostFacts = {}
        self.plugged = 0
        self.detections = 0
        self.changes = 0
        self.failure: Exception | None = None
        self.clock = SimulatedClock()
        self.keeper = FactsKeeper(
            self.detect,
            lambda: self.plugged,
            self.clock,
            extra=lambda: dict(self.extra),
            overlay=lambda facts: override_facts(facts, {"custom.stated": "1"}),
        )
        self.keeper.on_change = self.count

    def detect(self) -> HostFacts:
        self.detections += 1
        if self.failure:
            raise self.failure
        return dict(self.facts)

    def count(self) -> None:
        self.changes += 1

    async def reach(self, seconds: float) -> None:
        """Move time in the keeper's own steps; detections are done in a thread, so each is waited for."""
        for _ in range(int(seconds / 2)):
            await eventually(self._sleeping)
            self.clock.advance(2)
            await eventually(self._sleeping)

    async def _sleeping(self) -> bool:
        await asyncio.sleep(0)
        return self.clock.sleepers == 1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.keeper.refresh()
    task = asyncio.create_task(made.keeper.run_forever())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_stated_facts_are_known_before_the_first_detection() -> None:
    assert set(World().keeper()) == {"custom.stated"}


async def test_facts_are_detected_each_minute_and_not_more_often(world: World) -> None:
    assert world.keeper()["arch"].value == "x86_64"
    await world.reach(58)
    assert world.detections == 1
    await world.reach(4)
    assert world.detections == 2
    assert world.changes == 1, "the same facts are no news"


async def test_what_is_plugged_in_is_known_within_the_next_look(world: World) -> None:
    world.plugged += 1
    world.facts["devices.camera"] = fact(("/dev/video0",))
    await world.reach(2)
    assert world.keeper()["devices.camera"].value == ("/dev/video0",)
    assert (world.detections, world.changes) == (2, 2)


async def test_extra_facts_are_merged_at_the_next_look_without_a_detection(world: World) -> None:
    world.extra = {"engine": fact("podman"), "custom.stated": fact("from the engine")}
    await world.reach(2)
    assert world.keeper()["engine"].value == "podman"
    assert world.keeper()["custom.stated"].source == "override", "what a person states wins"
    assert world.detections == 1


async def test_free_space_is_news_only_when_it_moved_by_a_hundredth(world: World) -> None:
    for free, shown in ((500, 500), (495, 500), (491, 500), (489, 489), (498, 489), (499, 499)):
        world.facts |= {"disk.total_bytes": fact(1000), "disk.free_bytes": fact(free)}
        world.plugged += 1
        await world.reach(2)
        assert world.keeper()["disk.free_bytes"].value == shown


async def test_a_failed_detection_keeps_what_was_known_and_is_told_once(world: World) -> None:
    with capture_logs() as logs:
        world.failure = RuntimeError("no")
        for _ in range(3):
            world.plugged += 1
            await world.reach(2)
        world.failure = None
        world.plugged += 1
        await world.reach(2)
    assert world.keeper()["arch"].value == "x86_64"
    assert [log["event"] for log in logs] == ["facts.failing", "facts.restored"]


async def test_problems_are_logged_when_they_begin_and_when_they_end(world: World) -> None:
    with capture_logs() as logs:
        for problems in (("a",), ("a", "b"), ("b",), ()):
            world.facts["problems"] = fact(problems)
            world.plugged += 1
            await world.reach(2)
    assert [(log["event"], log["reason"]) for log in logs] == [
        ("facts.problem", "a"),
        ("facts.problem", "b"),
        ("facts.problem_over", "a"),
        ("facts.problem_over", "b"),
    ]


async def test_a_camera_plugged_into_a_real_tree_is_seen_by_the_loop(tmp_path: Path) -> None:
    machine = unpack("coral-box", tmp_path)
    detector = HostDetector(machine.root, data=machine.data, ask=machine.ask)
    clock = SimulatedClock()
    keeper = FactsKeeper(detector.detect, detector.look, clock)
    await keeper.refresh()
    assert keeper()["devices.camera"].value == ()
    camera = machine.root / "sys/class/video4linux/video0"
    camera.mkdir(parents=True)
    (camera / "index").write_text("0\n")
    (camera / "name").write_text("HD Pro Webcam C920\n")
    await keeper.step()
    assert keeper()["devices.camera"].value == ("/dev/video0",)
    before = keeper()
    await keeper.step()
    assert keeper() is before
