"""Rollout decisions over fleets that answer late, never, or badly."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.rollout.decide import (
    LEGAL_SITE_STEPS,
    Assign,
    Decision,
    HostFact,
    RolloutFact,
    SiteFact,
    Unassign,
    decide_rollout,
    retry_rollout,
)
from skerry.spec.api import SiteProgress

pytestmark = pytest.mark.rollout

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NEW, OLD = "reader@2", "reader@1"


class Fleet:
    """Sites of one host each, and a rollout over them."""

    def __init__(self, names: list[str], assigned: str = OLD) -> None:
        self.rollout = RolloutFact("second", NEW, "running", {})
        self.sites = {
            name: SiteFact(name, (HostFact("h-" + name, holds_offer=False),), assigned) for name in names
        }
        self.starts: list[str] = []

    def say(self, name: str, **host: object) -> None:
        """Let a site's host report."""
        site = self.sites[name]
        host = {"holds_offer": True, "as_of": NOW, **host}
        self.sites[name] = msgspec.structs.replace(
            site, hosts=(msgspec.structs.replace(site.hosts[0], **host),)
        )

    def decide(self) -> Decision:
        """Decide and store."""
        before = self.rollout
        decision = decide_rollout(before, list(self.sites.values()), now=NOW)
        for name, progress in decision.sites.items():
            old = before.sites[name].state if name in before.sites else "pending"
            assert progress.state == old or _reachable(old, progress.state), (old, progress.state)
        for effect in decision.effects:
            release, by = (effect.release, "second") if isinstance(effect, Assign) else ("", "")
            if release == NEW:
                self.starts.append(effect.site)
            site = self.sites[effect.site]
            silent = tuple(msgspec.structs.replace(host, holds_offer=False) for host in site.hosts)
            self.sites[effect.site] = msgspec.structs.replace(
                site, assigned=release, assigned_by=by, hosts=silent
            )
        self.rollout = msgspec.structs.replace(before, state=decision.state, sites=decision.sites)
        return decision

    def state(self, name: str) -> str:
        return self.rollout.sites[name].state


def _reachable(old: str, new: str) -> bool:
    """One decision may take two legal steps, such as applying, then taken back."""
    first = LEGAL_SITE_STEPS[old]  # type: ignore[index]
    return new in first or any(new in LEGAL_SITE_STEPS[middle] for middle in first)


def test_every_site_is_offered_the_release_and_remembers_where_it_came_from() -> None:
    fleet = Fleet(["a", "b"])
    decision = fleet.decide()
    assert decision.effects == (Assign("a", NEW), Assign("b", NEW))
    assert decision.sites["a"].previous == OLD
    assert fleet.decide().effects == ()


def test_a_rollout_succeeds_when_every_site_runs_it() -> None:
    fleet = Fleet(["a", "b"])
    fleet.decide()
    fleet.say("a", running=NEW)
    assert fleet.decide().state == "running"
    assert fleet.state("a") == "succeeded"
    assert fleet.state("b") == "offered"
    fleet.say("b", running=OLD, candidate=NEW, why="soaking")
    assert "soaking" in fleet.decide().sites["b"].why
    fleet.say("b", running=NEW, candidate="")
    assert fleet.decide().state == "succeeded"


@pytest.mark.rule("ROLLOUT-1")
def test_a_failure_halts_and_takes_the_release_back_from_all_who_have_not_proven_it() -> None:
    fleet = Fleet(["good", "bad", "busy", "away"])
    fleet.decide()
    fleet.say("good", running=NEW)
    fleet.say("busy", running=OLD, candidate=NEW)
    fleet.decide()
    fleet.say("bad", running=OLD, refused="probe failed")
    decision = fleet.decide()
    assert decision.state == "failed"
    assert "probe failed" in decision.why
    assert set(decision.effects) == {Assign("bad", OLD), Assign("busy", OLD), Assign("away", OLD)}
    assert fleet.state("good") == "succeeded"
    assert fleet.decide().effects == ()


def test_a_site_that_had_nothing_before_gets_nothing_back() -> None:
    fleet = Fleet(["a"], assigned="")
    fleet.decide()
    fleet.say("a", refused="crashed")
    assert fleet.decide().effects == (Unassign("a"),)


@pytest.mark.rule("ROLLOUT-2")
def test_a_silent_site_is_neither_failed_nor_succeeded() -> None:
    fleet = Fleet(["a", "silent"])
    fleet.decide()
    fleet.say("a", running=NEW)
    for _ in range(50):
        assert fleet.decide().state == "running"
    assert fleet.state("silent") == "offered"


def test_what_a_host_said_before_it_held_the_offer_does_not_count() -> None:
    fleet = Fleet(["a"])
    fleet.decide()
    fleet.say("a", holds_offer=False, running=NEW, refused="an old refusal")
    fleet.decide()
    assert fleet.state("a") == "offered"


def test_a_newer_rollout_takes_a_site_over() -> None:
    fleet = Fleet(["a", "b"])
    fleet.decide()
    fleet.say("a", running=NEW)
    fleet.decide()
    fleet.sites["b"] = msgspec.structs.replace(fleet.sites["b"], taken_by="third")
    decision = fleet.decide()
    assert fleet.state("b") == "superseded"
    assert decision.state == "succeeded"
    assert decision.effects == ()


def test_a_retry_offers_again_where_it_failed_and_nowhere_else() -> None:
    fleet = Fleet(["a", "b"])
    fleet.decide()
    fleet.say("a", running=NEW)
    fleet.say("b", refused="crashed")
    fleet.decide()
    fleet.rollout = msgspec.structs.replace(
        fleet.rollout, state="running", sites=retry_rollout(fleet.rollout)
    )
    assert fleet.decide().effects == (Assign("b", NEW),)


words = st.sampled_from(["nothing", "holds", "candidate", "running", "refused", "taken", "back"])


@pytest.mark.rule("ROLLOUT-1")
@pytest.mark.rule("ROLLOUT-2")
@settings(max_examples=200, deadline=None)
@given(script=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), words), max_size=40))
def test_whatever_hosts_say_in_whatever_order(script: list[tuple[str, str]]) -> None:
    fleet = Fleet(["a", "b", "c"])
    silent = "c"
    fleet.decide()
    for name, word in script:
        if name == silent:
            continue
        if name == "d" and "d" not in fleet.sites:
            fleet.sites["d"] = SiteFact("d", (HostFact("h-d", holds_offer=False),), OLD)
        before = fleet.rollout.state
        match word:
            case "holds":
                fleet.say(name, running=OLD)
            case "candidate":
                fleet.say(name, running=OLD, candidate=NEW)
            case "running":
                fleet.say(name, running=NEW, candidate="")
            case "refused":
                fleet.say(name, running=OLD, candidate="", refused="bad")
            case "back":
                fleet.say(name, running=OLD, refused="")
            case "taken":
                fleet.sites[name] = msgspec.structs.replace(fleet.sites[name], taken_by="third")
            case _:
                pass
        starts = len(fleet.starts)
        fleet.decide()
        if before != "running":
            assert len(fleet.starts) == starts, "something started after the rollout had ended"
    assert fleet.rollout.sites[silent].state in ("offered", "pending")
    assert decide_rollout(fleet.rollout, list(fleet.sites.values()), now=NOW) == decide_rollout(
        fleet.rollout, list(reversed(fleet.sites.values())), now=NOW
    )


def test_the_progress_of_a_site_that_left_the_selection_is_kept() -> None:
    fleet = Fleet(["a", "b"])
    fleet.decide()
    del fleet.sites["b"]
    decision = fleet.decide()
    assert decision.sites["b"] == SiteProgress(state="offered", why="queued", as_of=NOW, previous=OLD)


@pytest.mark.rule("ROLLOUT-1")
@pytest.mark.parametrize("state", ("succeeded", "failed", "superseded"))
def test_a_rollout_that_has_ended_offers_nothing_to_a_site_that_comes_later(state: str) -> None:
    fleet = Fleet(["a", "late"])
    ended = msgspec.structs.replace(fleet.rollout, state=state, sites={})
    assert decide_rollout(ended, list(fleet.sites.values()), now=NOW).effects == ()
