"""Rollouts of what runs by turns: which words of which hosts make a site done, and which do not."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.rollout.decide import decide_rollout
from skerry.rollout.facts import HostFact, RolloutFact, SiteFact, WavePlan
from skerry.spec.api_rollout import SiteProgress

pytestmark = pytest.mark.rollout

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NEW, OLD = "reader@2", "reader@1"
RUNS = HostFact("runs", holds_offer=True, running=NEW, as_of=NOW)
READY = HostFact("ready", holds_offer=True, running=OLD, candidate=NEW, standing_by=True, as_of=NOW)
STAYED = HostFact("stayed", holds_offer=True, running=NEW, standing_by=True, as_of=NOW)
BUSY = HostFact(
    "busy", holds_offer=True, running=OLD, candidate=NEW, why="soaking", as_of=NOW, stage="soaking"
)
BEHIND = HostFact("behind", holds_offer=True, running=OLD, standing_by=True, as_of=NOW)
AWAY = HostFact("away", holds_offer=False, running=NEW)


def decide(*hosts: HostFact, turns: int = 1, unfit: str = "") -> SiteProgress:
    offered = SiteProgress(state="offered", why="", as_of=NOW, wave=0)
    rollout = RolloutFact(name="first", release=NEW, waves=(WavePlan("all"),), sites={"a": offered})
    site = SiteFact("a", hosts, NEW, "first", turns=turns, unfit=unfit)
    return decide_rollout(rollout, [site], now=NOW).sites["a"]


@pytest.mark.parametrize(
    ("hosts", "turns", "state"),
    (
        ((RUNS, READY), 1, "succeeded"),
        ((RUNS, STAYED), 1, "succeeded"),
        ((RUNS,), 2, "succeeded"),  # fewer hosts fit than are wanted: those that do run it
        ((READY, STAYED), 1, "applying"),  # nobody has proven it
        ((RUNS, READY), 2, "applying"),  # one too few
        ((RUNS, BUSY), 1, "soaking"),
        ((RUNS, BEHIND), 1, "applying"),
        ((RUNS, AWAY), 1, "applying"),  # silence is no success
        ((AWAY,), 1, "offered"),
        ((), 1, "offered"),
        ((RUNS, READY), 0, "applying"),  # where it does not go by turns, standing by is not enough
    ),
)
def test_a_site_is_done_when_enough_run_it_and_all_others_stand_by(
    hosts: tuple[HostFact, ...], turns: int, state: str
) -> None:
    assert decide(*hosts, turns=turns).state == state


def test_a_refusal_of_one_that_stands_by_fails_the_site() -> None:
    refused = msgspec.structs.replace(READY, refused="no room")
    assert decide(RUNS, refused).why == "ready: no room"


def test_what_fits_no_host_fails_with_the_reasons() -> None:
    progress = decide(unfit="no host fits; edge-1: needs a camera")
    assert (progress.state, progress.why) == ("failed", "no host fits; edge-1: needs a camera")


@pytest.mark.rule("ROLLOUT-2")
@given(st.lists(st.sampled_from((RUNS, READY, STAYED, BUSY, BEHIND, AWAY)), max_size=5), st.integers(0, 3))
def test_a_site_with_a_silent_host_is_never_done(hosts: list[HostFact], turns: int) -> None:
    progress = decide(*hosts, AWAY, turns=turns)
    assert progress.state in ("offered", "applying", "soaking")
