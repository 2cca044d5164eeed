"""A rollout that a policy blocks: all is as without the policy, but that no pending site is offered the release."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.rollout.decide import decide_rollout
from skerry.rollout.facts import Assign, HostFact, RolloutFact, SiteFact
from skerry.spec.api_rollout import SiteProgress, SiteRolloutState
from tests.unit.rollout_world import NEW, NOW, OLD, ONE, RolloutWorld

pytestmark = [pytest.mark.trust, pytest.mark.rollout]

WHY = "policy production requires sbom: an SBOM is not attached"


def test_it_says_why_and_goes_on_when_the_policy_is_gone() -> None:
    world = RolloutWorld({"a": "good", "b": "good"}, ONE, blocked=WHY)
    decision = world.decide()
    assert (decision.state, decision.effects) == ("running", ())
    assert decision.why == f"2 pending; offered to no further site: {WHY}"
    assert world.decide() == decision
    world.rollout = msgspec.structs.replace(world.rollout, blocked="")
    assert world.decide().effects == (Assign("a", NEW), Assign("b", NEW))


def test_one_whose_sites_all_have_it_is_not_stopped_by_a_policy() -> None:
    world = RolloutWorld({"a": "good"}, ONE)
    world.decide()
    world.work("a")
    world.rollout = msgspec.structs.replace(world.rollout, blocked=WHY)
    decision = world.decide()
    assert (decision.state, decision.why) == ("succeeded", "1 succeeded")


states: st.SearchStrategy[SiteRolloutState] = st.sampled_from(
    ["pending", "offered", "applying", "succeeded", "failed", "superseded"]
)
hosts = st.builds(
    HostFact,
    st.just("edge"),
    holds_offer=st.booleans(),
    running=st.sampled_from(["", OLD, NEW]),
    candidate=st.sampled_from(["", NEW]),
    refused=st.sampled_from(["", "crashed"]),
)
fleets = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(states, hosts, st.sampled_from([OLD, NEW, ""]), st.sampled_from(["", "third"])),
    max_size=4,
)


@pytest.mark.rule("POLICY-1")
@given(found=fleets)
def test_a_policy_keeps_the_release_from_pending_sites_and_changes_nothing_else(
    found: dict[str, tuple[SiteRolloutState, HostFact, str, str]],
) -> None:
    sites = {
        name: SiteProgress(state=state, why="", as_of=NOW, previous=OLD, wave=0)
        for name, (state, _, _, _) in found.items()
    }
    fleet = [
        SiteFact(name, (host,), assigned, "second" if assigned == NEW else "first", taken)
        for name, (_, host, assigned, taken) in found.items()
    ]
    rollout = RolloutFact(name="second", release=NEW, waves=ONE, sites=sites)
    free = decide_rollout(rollout, fleet, now=NOW)
    held = decide_rollout(msgspec.structs.replace(rollout, blocked=WHY), fleet, now=NOW)
    offered = {effect.site for effect in free.effects if isinstance(effect, Assign) and effect.release == NEW}
    assert [effect for effect in free.effects if effect.site not in offered] == list(held.effects)
    for name, progress in held.sites.items():
        assert progress == free.sites[name] or (name in offered and progress.state == "pending")
    assert held.state == free.state
