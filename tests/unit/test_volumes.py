"""Volumes: where they are, when they are full, how they are emptied."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from skerry.agent.volumes import Volumes
from skerry.spec.application import Component, Volume
from skerry.testing.clock import SimulatedClock
from skerry.testing.waiting import eventually


def component(size: str | None) -> Component:
    return Component(name="head", command=("run",), volumes=(Volume(name="memory", size=size),))


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "volumes", SimulatedClock())


def test_a_volume_is_for_its_component_alone_and_nobody_else_on_the_host_gets_in(volumes: Volumes) -> None:
    place = volumes.place("dog", "head", "memory")
    assert place.is_dir()
    assert place.stat().st_mode & 0o777 == 0o777
    assert place.parents[2].stat().st_mode & 0o777 == 0o700


async def test_a_volume_that_holds_more_than_it_may_is_told_until_there_is_room(tmp_path: Path) -> None:
    clock = SimulatedClock()
    volumes = Volumes(tmp_path / "volumes", clock)
    file = volumes.place("dog", "head", "memory") / "bones"
    file.write_bytes(bytes(300_000))
    volumes.watch({"dog.head": component("200KiB")})
    changed = asyncio.Event()
    volumes.on_change = changed.set
    task = asyncio.create_task(volumes.run_forever())
    try:
        await asyncio.wait_for(changed.wait(), 20)
        assert volumes.full.keys() == {"dog.head"}
        assert "may hold 200" in volumes.full["dog.head"]
        changed.clear()
        file.unlink()

        async def seen() -> bool:
            clock.advance(5.0)
            return changed.is_set()

        await eventually(seen, what="room again")
        assert volumes.full == {}
    finally:
        task.cancel()


def test_wiping_empties_all_volumes_of_an_application_and_remembers_it(volumes: Volumes) -> None:
    for application in ("dog", "cat"):
        (volumes.place(application, "head", "memory") / "x").write_text("x")
        (volumes.own(application, "head") / "y").write_text("y")
    volumes.wipe("dog", 3)
    assert volumes.wiped() == {"dog": 3}
    assert list(volumes.place("dog", "head", "memory").iterdir()) == []
    assert list(volumes.own("dog", "head").iterdir()) == []
    assert (volumes.place("cat", "head", "memory") / "x").exists()
    volumes.wipe("dog", 4)
    assert volumes.wiped() == {"dog": 4}


def test_a_wipe_that_was_cut_short_is_finished_by_the_next(volumes: Volumes) -> None:
    place = volumes.place("dog", "head", "memory")
    (place / "x").write_text("x")
    root = place.parents[2]
    (root / "dog").rename(root / ".removed-dog-1")
    assert volumes.wiped() == {}
    volumes.wipe("dog", 1)
    volumes.bury()
    assert sorted(path.name for path in root.iterdir()) == [".wiped"]


def test_a_count_that_cannot_be_read_empties_nothing_again(volumes: Volumes, tmp_path: Path) -> None:
    volumes.wipe("dog", 3)
    (tmp_path / "volumes" / ".wiped" / "dog").write_text("thr")
    assert volumes.wiped()["dog"] > 1_000_000
    volumes.wipe("dog", 4)
    assert volumes.wiped() == {"dog": 4}
