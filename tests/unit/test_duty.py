"""Whose turn it is: one decision at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from skerry.reconcile.duty import (
    Duty,
    DutyState,
    HeardView,
    Mine,
    Says,
    begin_duty,
    decide_duty,
    timing_of,
)
from skerry.spec.desired import SitePlacement

HOSTS = ("a", "b", "c")
PLACED = SitePlacement(count=1, hosts=HOSTS, takeover_s=10.0)
ABLE = Mine(host="b", generation=1, able=True)


def heard(says: Says, rank: int, **facts: Any) -> HeardView:
    view = HeardView(heard_at=100.0, says=says, rank=rank, generation=1, knows=9, knows_at=100.0)
    return msgspec.structs.replace(view, **facts)


def old(**facts: Any) -> DutyState:
    """Return the state of an agent that has run for long."""
    return msgspec.structs.replace(DutyState(began=0.0), **facts)


def decide(
    hearing: dict[str, HeardView], state: DutyState | None = None, mine: Mine = ABLE, now: float = 100.0
) -> Duty:
    return decide_duty(PLACED, mine, hearing, state or old(), now=now)


def test_who_hears_an_able_host_before_it_stands_by_and_says_which() -> None:
    duty = decide({"a": heard("able", 0), "c": heard("able", 2)})
    assert (duty.active, duty.says, duty.why) == (False, "able", "standing by: a before it")
    assert duty.wake_in_s == pytest.approx(6.0, abs=0.01)  # when a could be deaf; silent after 8 s


def test_a_claim_is_good_once_everybody_heard_has_answered_it() -> None:
    hearing = {"a": heard("out", 0, knows=0), "c": heard("able", 2, knows=1)}
    duty = decide(hearing)
    assert (duty.active, duty.says, duty.state.claim) == (False, "claim", 1)
    assert duty.why == "its turn: waiting for an answer of a"
    duty = decide({**hearing, "a": heard("out", 0, knows=1)}, duty.state)
    assert (duty.active, duty.says) == (True, "run")
    assert duty.why == "takes over: a cannot run it"


def test_an_answer_to_an_older_claim_does_not_count() -> None:
    hearing = {"a": heard("out", 0, knows=3), "c": heard("able", 2, knows=3)}
    assert not decide(hearing, old(claim=3)).active
    assert decide(hearing, old(claim=2)).active


def test_a_claim_waits_while_another_runs_or_claims() -> None:
    for says in ("run", "claim"):
        duty = decide({"a": heard("out", 0), "c": heard(says, 2)})
        assert (duty.active, duty.why) == (False, "its turn: waiting for c to end it")
    assert decide({"a": heard("out", 0), "c": heard("able", 2)}).active


def test_a_claim_waits_a_while_for_those_that_are_not_heard() -> None:
    hearing = {"a": heard("run", 0, heard_at=91.9), "c": heard("able", 2)}
    duty = decide(hearing)
    assert (duty.active, duty.why) == (False, "its turn: listening for a")
    assert duty.wake_in_s == pytest.approx(2.0, abs=0.01)
    later = {**hearing, "c": heard("able", 2, heard_at=102.0, knows_at=102.0)}
    duty = decide(later, duty.state, now=102.1)
    assert (duty.active, duty.why) == (True, "takes over: a is silent")


def test_nobody_is_silent_who_may_only_not_have_been_heard_yet() -> None:
    assert decide({}, begin_duty(alive=False, now=95.0)).why == "standing by: a before it"
    assert decide({}, begin_duty(alive=False, now=91.9)).says == "claim"


def test_what_runs_at_a_start_of_the_agent_runs_on_until_somebody_before_it_is_heard() -> None:
    running = msgspec.structs.replace(ABLE, alive=True)
    state = begin_duty(alive=True, now=99.0)
    assert decide({}, state, running).active
    assert not decide({"a": heard("able", 0)}, state, running).active


def test_one_that_ends_it_says_that_it_runs_until_it_has_ended() -> None:
    ending = msgspec.structs.replace(ABLE, alive=True)
    duty = decide({"a": heard("claim", 0)}, old(entered=True), ending)
    assert (duty.active, duty.says) == (False, "run")
    assert decide({"a": heard("claim", 0)}, duty.state).says == "able"


def test_one_that_is_not_heard_gives_way_to_a_claim_and_not_to_mere_ability() -> None:
    first = msgspec.structs.replace(ABLE, host="a", alive=True)
    deaf = {"b": heard("able", 1, knows_at=90.0), "c": heard("able", 2)}
    state = old(entered=True, since={"b": 50.0})
    assert decide(deaf, state, first).active
    deaf["b"] = heard("claim", 1, knows_at=90.0)
    duty = decide(deaf, state, first)
    assert (duty.active, duty.why) == (False, "standing by: b before it")
    # Just after a silence nobody is deaf yet: the answer is on its way.
    assert decide(deaf, old(entered=True, since={"b": 99.0}), first).active


def test_of_hosts_that_say_the_same_rank_the_newer_generation_comes_first() -> None:
    rival = {"c": heard("able", 1, generation=2)}
    assert decide(rival).why == "standing by: c before it"
    assert decide({"c": heard("able", 1, generation=1)}, old()).says == "claim"


def test_majority_counts_only_hosts_that_have_answered_lately() -> None:
    placed = msgspec.structs.replace(PLACED, split="majority")
    first = Mine(host="a", generation=1, able=True, alive=True)
    state = old(entered=True, since={"b": 99.0})
    assert decide_duty(placed, first, {"b": heard("able", 1)}, state, now=100.0).active
    for late in (None, 91.9):
        duty = decide_duty(placed, first, {"b": heard("able", 1, knows_at=late)}, state, now=100.0)
        assert (duty.active, duty.says) == (False, "run")
        assert "fewer than half of 3 hosts" in duty.why
        ended = msgspec.structs.replace(first, alive=False)
        assert decide_duty(placed, ended, {}, duty.state, now=100.0).says == "out"


def test_a_host_that_is_not_listed_never_runs_it() -> None:
    stranger = Mine(host="x", generation=1, able=True, alive=True)
    duty = decide({}, old(entered=True), stranger)
    assert (duty.active, duty.says, duty.why) == (False, "run", "placed on other hosts")


@pytest.mark.parametrize("takeover_s", (0.1, 1.0, 5.0, 30.0, 3600.0))
def test_a_takeover_has_room_for_at_least_four_heartbeats(takeover_s: float) -> None:
    times = timing_of(takeover_s)
    assert 0.2 <= times.beat_s <= 5.0
    assert times.silent_s >= 4 * times.beat_s * 0.999
    assert times.deaf_s >= 3 * times.beat_s * 0.999
    assert times.silent_s + times.hold_s == pytest.approx(max(takeover_s, 1.0))
