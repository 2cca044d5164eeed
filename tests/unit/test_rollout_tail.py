"""Sites that nobody has heard of yet, or that have no hosts, hold no wave up, and converge when they appear."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.unit.rollout_world import ONE, RolloutWorld
from tests.unit.test_gates_over_wire import NEW, OLD, Wired

pytestmark = pytest.mark.rollout

BAD = ("failed", "succeeded")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[Wired]:
    made = Wired(tmp_path)
    for version in ("1", "2"):
        await made.attach(version=version)
    yield made
    for agent in made.agents.values():
        await agent.link.client.aclose()
    made.hub.store.close()


@pytest.mark.rule("ROLLOUT-2")
async def test_sites_without_hosts_and_hosts_never_heard_of_converge_when_they_appear(world: Wired) -> None:
    early, late = world.agents["basel"], world.agents["thun"]
    await early.join()
    await early.follow()
    world.site("empty", labels={"wired": "yes"})
    await world.start("first", "1", {"size": "100%"})
    await world.look()
    record = world.rollout("first")
    assert [wave.state for wave in record.steering.waves] == ["passed"]
    assert record.sites["basel"].state == "succeeded"
    absent = {name: one for name, one in record.sites.items() if name != "basel"}
    assert {one.state for one in absent.values()} == {"unreachable"}
    assert (record.state, len(absent)) == ("running", 4)
    assert record.why == "all waves have passed; 4 sites follow when they are heard of"
    world.clock.advance(400 * 86400.0)
    await early.syncer.exchange(0.0)
    await world.step()
    states = {name: one.state for name, one in world.rollout("first").sites.items()}
    assert states == {"basel": "succeeded", **dict.fromkeys(absent, "unreachable")}, (
        "a year makes no difference"
    )

    await late.join()
    await world.step()
    assert world.rollout("first").sites["thun"].state == "unreachable", "it has joined and said nothing"
    await late.follow()
    await world.step()
    assert world.rollout("first").sites["thun"].state == "offered"
    await late.follow()
    await world.step()
    assert (late.runs, world.rollout("first").sites["thun"].state) == (OLD, "succeeded")

    # A newer rollout takes what is left: who appears then never meets the older release.
    await world.start("second", "2", {"size": "1"}, {"size": "100%"})
    assert {one.state for name, one in world.rollout("first").sites.items() if name in absent} == {
        "superseded", "succeeded",
    }  # fmt: skip
    chur = world.agents["chur"]
    await chur.join()
    for _ in range(4):
        await world.step()
        for agent in (early, late, chur):
            await agent.follow()
            assert agent is not chur or agent.runs in ("", NEW)
    await world.step()
    assert {agent.runs for agent in (early, late, chur)} == {NEW}
    record = world.rollout("second")
    assert {name for name, one in record.sites.items() if one.state == "unreachable"} == {"bern", "empty"}
    assert record.state == "running"


@pytest.mark.rule("ROLLOUT-2")
def test_a_rollout_to_sites_that_have_no_hosts_neither_passes_nor_fails() -> None:
    world = RolloutWorld({"a": "good", "b": "bad"}, ONE)
    for name in world.sites:
        world.sites[name] = type(world.sites[name])(name, reachable=False)
    for _ in range(5):
        world.now = world.now.replace(year=world.now.year + 1)
        decision = world.decide()
        assert (decision.state, decision.effects) == ("running", ())
        assert {one.state for one in decision.sites.values()} == {"unreachable"}
        assert decision.waves[0].state != "passed"
    assert not set(world.states()) & set(BAD)
