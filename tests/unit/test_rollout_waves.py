"""Waves, budgets, halts and ways back, over fleets that answer late, never, or badly."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from skerry.rollout.decide import ENDED, retry_rollout
from skerry.rollout.facts import Amount, Assign, Unassign, Verdict, WavePlan
from tests.unit.rollout_world import CANARY, NEW, OLD, ONE, STAGES, Behaviour, RolloutWorld

pytestmark = pytest.mark.rollout


def good(count: int) -> dict[str, Behaviour]:
    return {f"s{number:02}": "good" for number in range(count)}


def test_a_good_release_goes_through_its_waves_and_succeeds() -> None:
    world = RolloutWorld(good(10))
    first = world.decide()
    assert len(first.effects) == 1, "the canary"
    assert first.waves[0].state == "running"
    canary = world.offered[0]
    world.work(canary)
    soaking = world.decide()
    assert soaking.waves[0].state == "soaking"
    assert soaking.wake_at == world.now + timedelta(seconds=60)
    world.now += timedelta(seconds=61)
    second = world.decide()
    assert [wave.state for wave in second.waves] == ["passed", "running", "waiting"]
    assert len(second.effects) == 2, "as many as may be in flight"
    assert world.settle().state == "succeeded"
    assert world.states() == {"succeeded": 10}
    assert [wave.members for wave in world.rollout.progress] == [1, 5, 4]


@pytest.mark.rule("ROLLOUT-1")
def test_a_bad_release_stops_at_the_canary_and_goes_back() -> None:
    world = RolloutWorld({f"s{number}": "bad" for number in range(10)})
    decision = world.settle()
    assert decision.state == "failed"
    assert "probe failed" in decision.why
    assert len(set(world.offered)) == 1
    assert all(site.assigned == OLD for site in world.sites.values())


def test_a_failure_later_takes_the_release_back_from_everybody_within_budgets() -> None:
    sites = good(8)
    world = RolloutWorld(
        sites, (WavePlan("some", size=Amount(count=6), max_in_flight=Amount(count=2)), ONE[0])
    )
    while world.states()["succeeded"] < 4:
        for name in world.sites:
            world.work(name)
        world.decide()
    last = next(
        name
        for name in world.sites
        if world.rollout.sites[name].wave == 0 and world.state(name) != "succeeded"
    )
    world.behaviours[last] = "bad"
    assert world.settle().state == "failed"
    assert world.states()["rolled_back"] >= 4
    assert {host.running for site in world.sites.values() for host in site.hosts} == {OLD}


@pytest.mark.rule("ROLLOUT-6")
def test_sites_that_are_away_follow_later_and_never_meet_a_release_that_was_aborted() -> None:
    world = RolloutWorld(good(6), ONE)
    for name in ("s01", "s02"):
        world.reach(name, reachable=False)
    decision = world.settle()
    assert (decision.state, decision.waves[0].state) == ("running", "passed")
    assert world.state("s01") == "unreachable"
    world.reach("s01", reachable=True)
    world.settle(steps=3)
    assert world.state("s01") == "succeeded"
    world.control(aborted="revert")
    assert world.settle().state == "aborted"
    world.reach("s02", reachable=True)
    world.settle()
    assert "s02" not in world.offered
    assert {host.running for site in world.sites.values() for host in site.hosts} == {OLD}


@pytest.mark.rule("ROLLOUT-6")
def test_a_site_that_falls_silent_at_work_is_taken_back_from_when_it_is_aborted() -> None:
    world = RolloutWorld(good(2), ONE)
    world.decide()
    world.host("s00", holds_offer=True, candidate=NEW, stage="downloading")
    world.reach("s00", reachable=False)
    world.work("s01")
    world.decide()
    assert world.state("s00") == "unreachable"
    world.control(aborted="keep")
    decision = world.decide()
    assert decision.effects == (Assign("s00", OLD),)
    assert decision.state == "aborted"
    assert world.sites["s01"].assigned == NEW


def test_the_canary_is_drawn_from_sites_that_can_be_heard() -> None:
    world = RolloutWorld(good(10))
    for number in range(9):
        world.reach(f"s{number:02}", reachable=False)
    world.decide()
    assert world.offered == ["s09"]


def test_a_wave_without_anybody_reachable_does_not_pass_by_time() -> None:
    world = RolloutWorld(good(3), ONE)
    for name in world.sites:
        world.reach(name, reachable=False)
    decision = world.decide()
    for _ in range(5):
        world.now += timedelta(days=30)
        decision = world.decide()
    assert decision.state == "running"
    assert decision.waves[0].state == "running"
    assert "none of its 3 sites is reachable" in decision.why


def test_after_the_deadline_a_quorum_is_enough() -> None:
    world = RolloutWorld(good(4), (WavePlan("most", quorum=0.75, deadline_s=600.0),))
    world.decide()
    for name in ("s00", "s01", "s02"):
        world.work(name)
    world.host("s03", holds_offer=True, candidate=NEW, stage="held", why="held by ann")
    assert world.decide().waves[0].state == "running"
    assert world.state("s03") == "held"
    world.now += timedelta(seconds=601)
    assert world.decide().waves[0].state == "passed"
    assert world.rollout.state == "running"
    world.work("s03")
    assert world.decide().state == "succeeded"


def test_a_wave_waits_for_its_approval() -> None:
    world = RolloutWorld(good(4), (WavePlan("first", size=Amount(count=1)), WavePlan("rest", manual=True)))
    decision = world.settle()
    assert decision.state == "running"
    assert decision.why == "rest: waits for approval"
    world.control(approved=(1,))
    assert world.settle().state == "succeeded"


def test_gates_hold_a_wave_and_a_gate_that_fails_takes_the_release_back() -> None:
    world = RolloutWorld(good(4), (WavePlan("first", size=Amount(count=2)), WavePlan("rest")))
    world.put(gated=True, verdicts={0: Verdict("inconclusive", "120 of 400 samples")})
    decision = world.settle()
    assert decision.why == "first: waiting for the gates: 120 of 400 samples"
    world.put(verdicts={0: Verdict("fail", "errors rose from 1 % to 5 %")})
    assert world.settle().state == "failed"
    assert world.states() == {"rolled_back": 2, "pending": 2}


def test_pausing_offers_nothing_more_and_lets_what_has_begun_go_on() -> None:
    world = RolloutWorld(good(6), (WavePlan("all", max_in_flight=Amount(count=2)),))
    world.decide()
    world.control(paused="ann looks at it")
    for name in world.sites:
        world.work(name)
    decision = world.decide()
    assert (decision.state, decision.effects) == ("paused", ())
    assert world.states() == {"succeeded": 2, "pending": 4}
    world.control(paused="")
    assert world.settle().state == "succeeded"


@pytest.mark.parametrize("then", ("pause", "continue"))
def test_on_failure_it_pauses_or_goes_on_if_it_was_told_to(then: str) -> None:
    sites: dict[str, Behaviour] = {**good(4), "s00": "bad"}
    world = RolloutWorld(sites, (WavePlan("all", max_in_flight=Amount(count=1)),), on_failure=then)
    decision = world.settle()
    assert decision.state == {"pause": "paused", "continue": "succeeded"}[then]
    assert world.state("s00") == "failed" or then == "pause"


def test_a_failure_budget_forgives_so_many() -> None:
    sites: dict[str, Behaviour] = {**good(10), "s03": "bad"}
    world = RolloutWorld(sites, ONE, failure_budget=Amount(share=0.1))
    assert world.settle().state == "succeeded"
    assert world.states() == {"succeeded": 9, "failed": 1}


def test_a_failed_rollout_is_tried_again_where_it_did_not_succeed() -> None:
    world = RolloutWorld({"a": "bad", "b": "good"}, ONE)
    assert world.settle().state == "failed"
    sites, waves = retry_rollout(world.rollout, world.now)
    world.put(state="running", sites=sites, progress=waves, halt=None)
    world.behaviours["a"] = "good"
    assert world.settle().state == "succeeded"


def test_a_site_that_had_nothing_before_has_nothing_after() -> None:
    world = RolloutWorld({"a": "bad"}, ONE, previous="")
    world.decide()
    world.work("a")
    assert Unassign("a") in world.decide().effects


def test_groups_have_limits_of_their_own() -> None:
    world = RolloutWorld(good(20), (WavePlan("all", group="region", group_limit=Amount(count=1)),))
    decision = world.decide()
    regions = [world.sites[effect.site].labels["region"] for effect in decision.effects]
    assert len(regions) == len(set(regions)) == 10
    assert world.settle().state == "succeeded"


def test_a_newer_rollout_takes_the_sites_that_are_not_done() -> None:
    world = RolloutWorld(good(3), ONE)
    world.decide()
    world.work("s00")
    world.decide()
    for name, site in world.sites.items():
        world.sites[name] = replace(site, taken_by="third")
    decision = world.decide()
    assert world.states() == {"succeeded": 1, "superseded": 2}
    assert decision.state == "succeeded"


_actions = st.tuples(
    st.sampled_from(
        [
            "work",
            "work",
            "work",
            "stage",
            "silent",
            "heard",
            "heard",
            "time",
            "pause",
            "resume",
            "approve",
            "abort",
            "new",
        ]
    ),
    st.integers(0, 11),
)


@pytest.mark.rule("ROLLOUT-1")
@pytest.mark.rule("ROLLOUT-2")
@pytest.mark.rule("ROLLOUT-3")
@pytest.mark.rule("ROLLOUT-4")
@pytest.mark.rule("ROLLOUT-5")
@settings(max_examples=150, deadline=None)
@given(
    bad=st.frozensets(st.integers(0, 11), max_size=4),
    waves=st.sampled_from(
        [CANARY, ONE, (WavePlan("a", size=Amount(count=3), group="region"), WavePlan("b", manual=True))]
    ),
    on_failure=st.sampled_from(["rollback", "rollback", "pause", "continue"]),
    actions=st.lists(_actions, max_size=60),
)
def test_no_order_of_events_breaks_a_promise(
    bad: frozenset[int], waves: tuple[WavePlan, ...], on_failure: str, actions: list[tuple[str, int]]
) -> None:
    """The world checks every decision: order of waves, budgets, halts, silence, determinism, legal steps."""
    names = [f"s{number:02}" for number in range(12)]
    sites: dict[str, Behaviour] = {
        name: "bad" if number in bad else "good" for number, name in enumerate(names)
    }
    world = RolloutWorld(sites, waves, on_failure=on_failure)
    for action, number in actions:
        name = names[number]
        match action:
            case "work":
                world.work(name)
            case "stage" if world.sites[name].assigned == NEW and world.sites[name].reachable:
                stage = STAGES[number % len(STAGES)]
                world.host(name, holds_offer=True, candidate=NEW, stage=stage, as_of=world.now)
            case "silent" | "heard":
                world.reach(name, reachable=action == "heard")
            case "time":
                world.now += timedelta(minutes=number * 10)
            case "pause" | "resume":
                world.control(paused="ann" if action == "pause" else "")
            case "approve":
                world.control(approved=(*world.rollout.control.approved, number % len(waves)))
            case "abort" if number == 0:
                world.control(aborted="revert")
            case _:
                pass
        world.decide()
    for name in names:
        world.reach(name, reachable=True)
    world.control(paused="", approved=tuple(range(len(waves))))
    decision = world.settle(steps=300)
    assert decision.state in ENDED or (decision.state == "paused" and on_failure == "pause"), decision.why
    if decision.state in ("failed", "aborted"):
        assert all(host.running == OLD for site in world.sites.values() for host in site.hosts)
