"""Rollouts on virtual time: what comes of them, and that what must never happen is noticed."""

from __future__ import annotations

import msgspec
import pytest

from skerry.kit.errors import Bug, Rejected
from skerry.rollout.decide import decide_rollout
from skerry.rollout.facts import Assign, RolloutFact, SiteFact
from skerry.spec.gates import GateSpec
from skerry.spec.rollout import GroupLimit, Wave
from skerry.spec.site import SiteSpec, SwitchWindow
from skerry.testing.simulation.documents import (
    Fault,
    ScenarioSpec,
    SimulatedMetric,
    SimulatedRelease,
    SiteGroup,
)
from skerry.testing.simulation.fleet import plan_fleet
from skerry.testing.simulation.profiles import SATELLITE_S
from skerry.testing.simulation.run import simulate
from skerry.testing.simulation.watching import Watch
from tests.unit.matching_world import component, release, variant
from tests.unit.simulation_world import BEGIN, NEW, OLD, SMALL, WAVES, Kept, fleet_of, premises, run

pytestmark = pytest.mark.rollout

HOUR_S, DAY_S = 3600.0, 86400.0


def bad(share: str = "100%", how: str = "crashes", hardware: str = "", **scenario: object) -> ScenarioSpec:
    fault = msgspec.convert({"share": share, "how": how, "hardware": hardware}, Fault)
    return ScenarioSpec(release=SimulatedRelease(size="20MiB", faults=(fault,)), **scenario)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    first, again, other = run(), run(), run(seed=8)
    assert msgspec.json.encode(first) == msgspec.json.encode(again)
    assert first.digest != other.digest


def test_a_good_release_reaches_every_site_that_is_ever_reachable() -> None:
    result = run(60)
    assert (result.state, result.states) == ("succeeded", {"succeeded": 60})
    assert result.exposed == 60
    assert result.fetched_bytes == 60 * 20 * 2**20, "each site fetches it once"
    times = result.all
    assert None not in (times.p50_s, times.p90_s, times.p99_s, times.p100_s)
    assert sorted([times.p50_s or 0, times.p90_s or 0, times.p99_s or 0, times.p100_s or 0])[0] == times.p50_s
    assert [wave.state for wave in result.waves] == ["passed", "passed"]


@pytest.mark.parametrize("how", ("crashes", "never-ready", "cannot-start", "fails-self-test"))
def test_a_bad_release_exposes_at_most_the_canary(how: str) -> None:
    result = run(scenario=bad(how=how, duration="2d"))
    assert result.state == "failed"
    assert result.exposed == (0 if how == "fails-self-test" else 3)
    assert result.states["failed"] == 3
    assert "succeeded" not in result.states


def test_a_release_that_is_bad_on_one_class_of_hardware_fails_there_alone() -> None:
    always = SiteGroup(name="pc", share="50%"), SiteGroup(name="jet", share="50%", hardware="jetson")
    result = run(
        fleet=fleet_of(*always), scenario=bad(hardware="jetson", duration="1d"), on_failure="continue"
    )
    assert result.states == {"failed": 20, "succeeded": 20}
    assert {group.name: group.succeeded for group in result.groups} == {"pc": 20, "jet": 0}
    assert result.bad == result.exposed_bad == 20


def test_a_relay_fetches_once_what_all_sites_behind_it_take() -> None:
    fleet = fleet_of(
        SiteGroup(name="plant", share="75%", spread={"relay": ("east", "west")}),
        SiteGroup(name="office", share="25%"),
    )
    result = run(fleet=fleet)
    size = result.groups[1].fetched_bytes // 10
    assert [(relay.name, relay.sites) for relay in result.relays] == [("east", 15), ("west", 15)]
    assert {relay.fetched_bytes for relay in result.relays} == {size}
    assert {relay.handed_down_bytes for relay in result.relays} == {15 * size}


def test_satellite_sites_converge_later_in_their_minutes() -> None:
    fleet = fleet_of(
        SiteGroup(name="office", share="50%"),
        SiteGroup(name="cabin", share="50%", link="satellite", rate="200kbit/s"),
    )
    result = run(fleet=fleet)
    office, cabin = result.groups
    assert result.state == "succeeded"
    assert office.p100_s is not None and office.p100_s < 6 * HOUR_S
    assert cabin.p50_s is not None and cabin.p50_s > DAY_S, "20 MiB take more than one pass"
    assert cabin.fetched_bytes == 20 * 20 * 2**20
    assert SATELLITE_S * 200_000 / 8 < 20 * 2**20, "the premise"


def test_a_site_that_was_away_never_meets_a_release_that_was_aborted() -> None:
    fleet = fleet_of(
        SiteGroup(name="on", share="50%"), SiteGroup(name="away", share="50%", link="dead-for-a-week")
    )
    scenario = ScenarioSpec(release=SMALL, abort_after="6h")
    result = run(fleet=fleet, scenario=scenario)
    here, away = result.groups
    assert result.state == "aborted"
    assert (here.exposed, here.succeeded) == (20, 0), "all went back"
    assert result.reachable.sites == 40, "the others came back, too"
    assert away.exposed < 20
    assert run(fleet=fleet).groups[1].succeeded == 20, "without the abort they get it"


def test_whoever_hands_an_aborted_release_to_a_site_that_was_away_is_caught() -> None:
    fact = RolloutFact(name="spring", release=NEW, waves=())
    aborted = msgspec.structs.replace(fact, control=msgspec.structs.replace(fact.control, aborted="revert"))
    watch = Watch(NEW)
    watch.check_learning(fact, SiteFact("s1"), NEW, BEGIN)
    watch.check_learning(aborted, SiteFact("s1"), OLD, BEGIN)
    with pytest.raises(Bug, match=r"2026-01-05 08:00:00Z \(s1\): a site that was away meets") as caught:
        watch.check_learning(aborted, SiteFact("s1"), NEW, BEGIN)
    assert (caught.value.code, caught.value.facts["site"]) == ("simulation.violation", "s1")


def test_a_decision_that_breaks_a_promise_ends_a_simulation() -> None:
    kept = Kept()
    run(recorder=kept, scenario=ScenarioSpec(release=SMALL, duration="3h"))
    fact, fleet, now, decision = next(
        one for one in kept.decisions if any(e.site for e in one[3].effects) and one[0].sites
    )
    sites = {site.name: site for site in fleet}
    offered = next(e.site for e in decision.effects if isinstance(e, Assign))
    watch = Watch(NEW)
    watch.check_decision(fact, sites, decision, now)
    paused = msgspec.structs.replace(fact, control=msgspec.structs.replace(fact.control, paused="wait"))
    with pytest.raises(Bug, match="after a halt, a pause or an abort"):
        watch.check_decision(paused, sites, decision, now)
    early = msgspec.structs.replace(decision.waves[0], state="running")
    with pytest.raises(Bug, match="begins before canary has passed"):
        watch.check_decision(
            fact, sites, msgspec.structs.replace(decision, waves=(early, *decision.waves[1:])), now
        )
    silent = sites | {offered: msgspec.structs.replace(sites[offered], reachable=False)}
    with pytest.raises(Bug, match="not reachable is offered"):
        watch.check_decision(fact, silent, decision, now)
    done = msgspec.structs.replace(decision.sites[offered], state="succeeded")
    hushed = msgspec.structs.replace(decision, sites={**decision.sites, offered: done}, effects=())
    with pytest.raises(Bug, match="a silent site counts as succeeded"):
        watch.check_decision(fact, silent, hushed, now)
    single = msgspec.structs.replace(fact.waves[1].max_in_flight, share=None, count=1)
    one = msgspec.structs.replace(fact.waves[1], max_in_flight=single)
    with pytest.raises(Bug, match="at work in rest, 1 may be"):
        watch.check_decision(msgspec.structs.replace(fact, waves=(fact.waves[0], one)), sites, decision, now)


def test_recorded_decisions_replay_to_the_same_decisions() -> None:
    kept = Kept()
    result = run(recorder=kept)
    assert len(kept.decisions) == result.decisions_made
    for fact, fleet, now, decision in kept.decisions:
        stored = msgspec.json.decode(msgspec.json.encode(fact), type=RolloutFact)
        facts = msgspec.json.decode(msgspec.json.encode(fleet), type=list[SiteFact])
        assert decide_rollout(stored, facts, now=now) == decision
    effects = sum(record.effects for record in result.decisions)
    assert effects == sum(len(decision.effects) for *_, decision in kept.decisions)


def test_flaky_hosts_power_cuts_and_wrong_clocks_delay_a_good_release_and_fail_it_nowhere() -> None:
    window = SwitchWindow(cron="0 2 * * *", duration="2h")
    rough = SiteGroup(
        name="rough", power_cuts_per_week=20.0, crashes_per_week=20.0, clock_skew="30m", hosts=2,
        site=SiteSpec(time_zone="Europe/Zurich", switch_windows=(window,)),
    )  # fmt: skip
    result = run(10, fleet=fleet_of(rough), scenario=ScenarioSpec(release=SMALL, duration="3d"))
    assert result.states == {"succeeded": 10}
    assert result.all.p50_s is not None and result.all.p50_s > 17 * HOUR_S, (
        "not before the window of the night"
    )
    assert result.fetched_bytes == 10 * 20 * 2**20, "two hosts fetch it once"


def test_gates_stop_a_release_whose_latency_rises_and_let_the_same_one_through_otherwise() -> None:
    metric = SimulatedMetric(name="latency_s", kind="quantile", typical=0.1, becomes=0.2, per_hour=1200)
    gate = GateSpec(metric="latency_s", kind="quantile", quantile=0.95, compare="cohort", max_increase="20%")
    fleet = fleet_of(SiteGroup(name="on"))
    measured = ScenarioSpec(release=SMALL, duration="3d", metrics=(metric,))
    stopped = run(fleet=fleet, scenario=measured, gates=(gate,))
    assert stopped.state == "failed"
    assert "latency_s p95" in stopped.why
    assert stopped.exposed == 3
    same = msgspec.structs.replace(metric, becomes=None)
    passed = run(fleet=fleet, scenario=msgspec.structs.replace(measured, metrics=(same,)), gates=(gate,))
    assert (passed.state, passed.assumptions) == ("succeeded", ())
    untold = run(fleet=fleet, gates=(gate,))
    assert untold.state == "succeeded"
    assert untold.assumptions == (
        "the gate of latency_s (quantile) passes: the scenario does not say what hosts measure",
    )


def test_a_wave_waits_for_its_approval_and_groups_keep_their_limits() -> None:
    waves = (
        WAVES[0],
        Wave(name="rest", approval="manual", max_in_flight_per=GroupLimit(label="region", limit="2")),
    )
    fleet = fleet_of(SiteGroup(name="on", spread={"region": ("a", "b")}))
    never = run(fleet=fleet, waves=waves)
    assert (never.state, never.why) == ("running", "rest: waits for approval")
    later = run(fleet=fleet, waves=waves, scenario=ScenarioSpec(release=SMALL, approve_after="1d"))
    assert later.state == "succeeded"
    assert later.waves[1].began_s is not None and later.waves[1].began_s > DAY_S


def test_variants_are_matched_to_the_facts_of_each_group() -> None:
    found = release(
        component(models=("eyes",)), models={"eyes": (variant("x", size_bytes=5 << 20, arch=("aarch64",)),)}
    )
    fleet = fleet_of(
        SiteGroup(name="arm", share="50%", facts={"arch": "aarch64"}),
        SiteGroup(name="intel", share="50%", facts={"arch": "x86_64"}),
    )
    plans = plan_fleet(fleet, ScenarioSpec(), sites=4, seed=1, release=found, previous=OLD)
    assert {plan.group: bool(plan.hosts[0].problem) for plan in plans} == {"arm": False, "intel": True}
    assert plans[0].size_bytes == (5 << 20) + 10
    told = msgspec.structs.replace(premises(fleet=fleet, on_failure="continue"), fleet=plans)
    assert simulate(told).states == {"failed": 2, "succeeded": 2}


def test_a_rollout_that_selects_nothing_is_refused_with_the_labels_that_there_are() -> None:
    found = premises(10)
    spec = msgspec.structs.replace(found.rollout.spec, sites="tier=x")
    nothing = msgspec.structs.replace(found, rollout=msgspec.structs.replace(found.rollout, spec=spec))
    with pytest.raises(Rejected, match="no site of the fleet matches tier=x") as caught:
        simulate(nothing)
    assert "group=office" in caught.value.hint
