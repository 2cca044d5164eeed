"""Decisions are remembered with what they did and why; what goes into them can be written down and replayed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.hub.api.app import API_PATH
from skerry.hub.recording import DecisionFiles
from skerry.rollout.recording import NAMED, decision_digest, inputs_digest, parse_recorded
from skerry.spec.api_rollout import DecisionView
from tests.unit.test_hub_policies import Guarded, rollout
from tests.unit.test_hub_steering import begun, steer

pytestmark = pytest.mark.rollout


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Guarded]:
    made = Guarded(tmp_path)
    yield made
    made.hub.store.close()


async def history(world: Guarded, name: str = "spring", **params: Any) -> list[DecisionView]:
    answer = await world.ask("viewer", f"{API_PATH}/rollouts/{name}/decisions", params=params)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=list[DecisionView])


async def test_what_changed_something_is_remembered_and_nothing_else(world: Guarded) -> None:
    await begun(world, {"size": "1"}, {"size": "100%"})
    (first,) = await history(world)
    (canary,) = (site for site, release in (await world.step()).items() if release == "camera@2")
    assert (first.number, first.state, first.why) == (1, "running", world.rollout("spring").why)
    assert [(e.release, e.sites, e.named) for e in first.effects] == [("camera@2", 1, (canary,))]
    for _ in range(5):
        world.clock.advance(1.0)
        await world.step()
    assert await history(world) == [first]
    await steer(world, "pause", why="the line is being cleaned")
    await world.step()
    await steer(world, "abort", then="revert")
    world.clock.advance(1.0)
    await world.step()
    found = await history(world)
    assert [one.number for one in found] == [3, 2, 1]
    assert [one.state for one in found[:2]] == ["aborted", "paused"]
    assert found[1].why == "paused: the line is being cleaned"
    assert [(e.release, e.sites) for e in found[0].effects] == [("camera@1", 1)], "it goes back"
    assert len({one.inputs for one in found}) == 3
    assert await history(world, limit=1) == found[:1]
    assert await history(world, limit=-5) == found[:1]


async def test_a_rollout_that_is_not_there_has_no_history(world: Guarded) -> None:
    answer = await world.ask("viewer", f"{API_PATH}/rollouts/none/decisions")
    assert (answer.status_code, answer.json()["code"]) == (404, "rollout.missing")


async def test_the_digest_of_a_decision_is_that_of_what_was_recorded_for_it(
    world: Guarded, tmp_path: Path
) -> None:
    world.hub.rollouts.recorder = DecisionFiles(tmp_path / "recordings")
    await world.attach()
    await world.applied("operator", rollout())
    await world.step()
    world.clock.advance(timedelta(hours=1).total_seconds())
    await world.step()
    recorded = list(parse_recorded((tmp_path / "recordings" / "spring.jsonl").read_bytes()))
    digests = [inputs_digest(one.rollout, one.fleet, one.now) for one in recorded]
    assert digests == [one.inputs for one in reversed(await history(world))]
    assert [decision_digest(one.decide()) for one in recorded] == [
        decision_digest(one.decision) for one in recorded
    ]
    assert len(recorded) == 2


async def test_of_many_sites_the_first_are_named(world: Guarded) -> None:
    names = [f"site-{number:02}" for number in range(NAMED + 5)]
    for name in names:
        world.site(name, labels={"many": "yes"})
        world.host(f"{name}-edge", name, {})
    await world.attach()
    await world.applied("operator", rollout(sites="many=yes"))
    await world.step()
    ((effect,),) = (one.effects for one in await history(world))
    assert (effect.sites, effect.named) == (NAMED + 5, tuple(names[:NAMED]))
