"""Hosts that watch each other over a network that fails in every way: who runs what, and never too many."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.spec.desired import SitePlacement
from skerry.trust.keys import SigningKey
from tests.unit.lan_world import APP, Lan

T = 5.0  # takeover_s of these tests
BOUND_S = (
    T + 2.0
)  # from the last change until hosts that hear each other agree, with the end of an application


def running_after(lan: Lan, seconds: float) -> list[str]:
    lan.run(seconds)
    return lan.running()


def test_the_first_in_order_starts_a_fifth_of_the_time_after_all_have_booted() -> None:
    lan = Lan(3)
    assert running_after(lan, T / 5 + 0.3) == ["edge-0"]
    assert running_after(lan, 20) == ["edge-0"]
    assert lan.says("edge-1") == lan.says("edge-2") == "able"
    assert "edge-0 before it" in lan.why("edge-1")


@pytest.mark.rule("STANDBY-2")
def test_the_next_takes_over_within_the_stated_time_when_the_first_falls_silent() -> None:
    lan = Lan(3)
    lan.run(20)
    lan.crash("edge-0")
    assert running_after(lan, 0.7 * T) == []
    assert running_after(lan, 0.3 * T + 0.2) == ["edge-1"]
    assert "edge-0 is silent" in lan.why("edge-1")
    lan.crash("edge-1")
    assert running_after(lan, T + 0.2) == ["edge-2"]


@pytest.mark.rule("STANDBY-1")
def test_the_stand_by_ends_before_the_first_starts_again() -> None:
    lan = Lan(2, ending_s=3.0)
    lan.run(10)
    lan.crash("edge-0")
    assert running_after(lan, 10) == ["edge-1"]
    lan.boot("edge-0")
    seen: list[list[str]] = []
    for _ in range(100):
        lan.step()
        seen.append(lan.running())
    assert ["edge-0", "edge-1"] not in seen
    assert seen[-1] == ["edge-0"]
    assert seen.index(["edge-0"]) <= 35  # it had to wait for the three seconds of the end, and no longer


def test_one_that_cannot_run_it_is_passed_over_at_once_and_not_by_silence() -> None:
    lan = Lan(3)
    lan.machines["edge-0"].able = False
    assert running_after(lan, T / 5 + T) == ["edge-1"]
    assert "edge-0 cannot run it" in lan.why("edge-1")
    lan.machines["edge-0"].able = True
    assert running_after(lan, 2) == ["edge-0"]
    lan.machines["edge-0"].able = False
    assert running_after(lan, 2) == ["edge-1"]


@pytest.mark.rule("STANDBY-1")
def test_hosts_that_become_able_at_the_same_moment_do_not_both_start() -> None:
    for seed in range(40):
        lan = Lan(3, latency_s=0.4, seed=seed)
        for machine in lan.machines.values():
            machine.able = False
        lan.run(10)
        for delay_s, name in zip((0.1, 0.2, 0.0), reversed(lan.names), strict=True):
            lan.machines[name].able = True
            lan.run(delay_s)
        for _ in range(60):
            lan.step()
            assert len(lan.running()) <= 1
        assert lan.running() == ["edge-0"]


def test_a_restart_of_an_agent_interrupts_nothing() -> None:
    lan = Lan(3)
    lan.run(10)
    starts = lan.starts
    lan.crash("edge-0")
    lan.run(10)
    for name in ("edge-1", "edge-2"):
        lan.stop_agent(name)
        lan.run(1)
        lan.boot(name)
        lan.run(10)
    assert lan.running() == ["edge-1"]
    assert (lan.starts, lan.ends) == (starts + 1, 1)


def test_after_a_start_a_stand_by_waits_for_those_before_it() -> None:
    lan = Lan(2)
    lan.crash("edge-0")
    assert running_after(lan, 0.95 * T) == []
    assert running_after(lan, 0.1 * T) == ["edge-1"]


def test_parts_of_a_split_network_each_run_on_and_one_remains_when_it_heals() -> None:
    lan = Lan(3)
    lan.run(10)
    lan.split("edge-0")
    assert running_after(lan, 10) == ["edge-0", "edge-1"]
    lan.heal()
    # At most one beat until they hear each other, and what the application takes to end.
    assert running_after(lan, T / 5 + 0.5 + 0.2) == ["edge-0"]
    assert lan.ends == 1  # the first was never interrupted


def test_with_majority_only_the_larger_part_runs_and_never_both() -> None:
    lan = Lan(3, split="majority", ending_s=0.5)
    lan.run(10)
    assert lan.running() == ["edge-0"]
    lan.split("edge-0")
    for _ in range(150):
        lan.step()
        assert len(lan.running()) <= 1
    assert lan.running() == ["edge-1"]
    assert "fewer than half" in lan.why("edge-0")
    lan.heal()
    for _ in range(100):
        lan.step()
        assert len(lan.running()) <= 1
    assert lan.running() == ["edge-0"]


def test_two_hosts_with_majority_both_end_it_when_they_lose_each_other() -> None:
    lan = Lan(2, split="majority")
    assert running_after(lan, 10) == ["edge-0"]
    lan.split("edge-0")
    assert running_after(lan, 10) == []
    lan.heal()
    assert running_after(lan, 3) == ["edge-0"]


def test_a_restart_of_an_agent_with_majority_interrupts_nothing() -> None:
    lan = Lan(3, split="majority")
    lan.run(10)
    lan.stop_agent("edge-0")
    lan.run(1)
    lan.boot("edge-0")
    lan.run(10)
    assert (lan.running(), lan.ends) == (["edge-0"], 0)


def test_who_is_not_heard_lets_the_one_who_takes_over_pass() -> None:
    lan = Lan(2)
    lan.run(10)
    lan.sever("edge-0", "edge-1")
    seen: list[list[str]] = []
    for _ in range(200):
        lan.step()
        seen.append(lan.running())
    assert ["edge-0", "edge-1"] not in seen  # it hears the claim, and has ended before the claim is good
    assert seen[-1] == ["edge-1"]
    lan.heal()
    assert running_after(lan, 5) == ["edge-0"]


def test_one_that_cannot_answer_is_not_waited_for_longer_than_it_takes_to_know_that() -> None:
    lan = Lan(3)
    lan.machines["edge-0"].able = False
    lan.machines["edge-2"].able = False
    assert running_after(lan, 10) == ["edge-1"]
    lan.sever("edge-0", "edge-2")
    lan.machines["edge-1"].able = False
    assert running_after(lan, 3) == []
    lan.machines["edge-0"].able = True
    assert running_after(lan, T) == ["edge-0"]


def test_who_hears_nobody_runs_on_while_those_that_hear_it_stand_by() -> None:
    lan = Lan(2)
    lan.run(10)
    lan.sever("edge-1", "edge-0")
    assert running_after(lan, 20) == ["edge-0"]
    assert lan.ends == 0


@pytest.mark.parametrize("newer", ("edge-0", "edge-1"))
def test_hosts_of_different_generations_agree_on_one(newer: str) -> None:
    lan = Lan(2)
    lan.run(10)
    turned = SitePlacement(count=1, hosts=("edge-1", "edge-0"), takeover_s=T)
    lan.give(newer, turned, generation=2)
    for _ in range(200):
        lan.step()
        assert len(lan.running()) <= 1
    assert len(lan.running()) == 1
    for name in lan.names:
        lan.give(name, turned, generation=2)
    assert running_after(lan, 5) == ["edge-1"]


def test_one_that_is_listed_no_more_ends_it_before_another_starts() -> None:
    lan = Lan(2, ending_s=3.0)
    lan.run(10)
    moved = SitePlacement(count=1, hosts=("edge-1",), takeover_s=T)
    for name in lan.names:
        lan.give(name, moved, generation=2)
    for _ in range(150):
        lan.step()
        assert len(lan.running()) <= 1
    assert lan.running() == ["edge-1"]


def test_lost_heartbeats_do_not_move_an_application() -> None:
    lan = Lan(3, seed=7)
    lan.run(10)
    lan.disturb(loss=0.15, delay_s=0.15)
    lan.run(120)
    assert (lan.running(), lan.ends) == (["edge-0"], 0)


def test_the_clocks_of_hosts_do_not_matter() -> None:
    lan = Lan(2)
    lan.machines["edge-1"].clock_offset = 1e9
    lan.boot("edge-1")
    assert lan.machines["edge-0"].clock_offset != lan.machines["edge-1"].clock_offset
    assert running_after(lan, 10) == ["edge-0"]


def expected(lan: Lan) -> list[str]:
    able = [n for n in lan.names if lan.machines[n].agent is not None and lan.machines[n].able]
    return able[: lan.placement.count]


STEPS: dict[str, Callable[[Lan, str, str], None]] = {
    "crash": lambda lan, one, _: lan.crash(one),
    "boot": lambda lan, one, _: lan.boot(one) if lan.machines[one].agent is None else None,
    "stop agent": lambda lan, one, _: lan.stop_agent(one),
    "sever": lambda lan, one, other: lan.sever(one, other) if one != other else None,
    "split": lambda lan, one, other: lan.split(*{one, other}),
    "heal": lambda lan, _one, _other: lan.heal(),
    "cannot": lambda lan, one, _: setattr(lan.machines[one], "able", False),
    "can": lambda lan, one, _: setattr(lan.machines[one], "able", True),
    "lossy": lambda lan, _one, _other: lan.disturb(loss=0.3, delay_s=0.6),
    "calm": lambda lan, _one, _other: lan.disturb(loss=0.0, delay_s=0.0),
}


@pytest.mark.rule("STANDBY-1")
@pytest.mark.rule("STANDBY-2")
@settings(max_examples=60)
@given(data=st.data())
def test_whatever_happens_never_too_many_run_where_hosts_hear_each_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 4))
    lan = Lan(
        size,
        count=data.draw(st.integers(1, size - 1)),
        split=data.draw(st.sampled_from(("keep", "majority"))),
        ending_s=data.draw(st.sampled_from((0.2, 1.0))),
        latency_s=data.draw(st.sampled_from((0.0, 0.4))),
        seed=data.draw(st.integers(0, 9999)),
    )
    hosts = st.integers(0, size - 1)
    pauses = st.floats(0.1, 0.6) | st.floats(0.1, 9.0)
    events = st.tuples(st.sampled_from(sorted(STEPS)), hosts, hosts, pauses)
    for name, one, other, seconds in data.draw(st.lists(events, max_size=10)):
        STEPS[name](lan, lan.names[one], lan.names[other])
        end = lan.now + seconds
        while lan.now < end:
            lan.step()
            running = lan.running()
            if lan.acquainted(running, BOUND_S):
                assert len(running) <= lan.placement.count, running
    lan.heal()
    lan.disturb(loss=0.0, delay_s=0.0)
    lan.run(2 * T + 4)
    assert lan.running() == expected(lan) or _may_not_run(lan)
    moves = (lan.starts, lan.ends)
    lan.run(4 * T)
    assert (lan.starts, lan.ends) == moves  # nothing flaps once it is calm


def _may_not_run(lan: Lan) -> bool:
    """Tell whether the majority is not there; an application whose agent is away runs on."""
    away = [name for name in lan.names if lan.machines[name].agent is None]
    if lan.placement.split == "majority" and 2 * len(away) >= len(lan.names):
        return not [name for name in lan.running() if name not in away]
    return [name for name in lan.running() if name not in away] == expected(lan)


def test_one_datagram_holds_many_applications_and_more_take_several() -> None:
    lan = Lan(2)
    names = [f"application-with-a-long-name-{number:03d}" for number in range(60)]
    for name, machine in lan.machines.items():
        assert machine.desired is not None
        placements = dict.fromkeys(names, lan.placement)
        machine.desired = msgspec.structs.replace(machine.desired, placements=placements)
        lan.boot(name)
    lan.run(4 * T)
    agents = [machine.agent for machine in lan.machines.values()]
    assert all(agent is not None and len(agent.duties) == 60 for agent in agents)
    heard = agents[1]
    assert heard is not None
    words = heard._known["edge-0"].words
    assert set(words) == set(names)
    assert all(lan.now - (view.heard_at - lan.machines["edge-1"].clock_offset) < T for view in words.values())
    assert APP not in words


def test_a_host_with_new_keys_is_heard_by_those_who_know_its_old_ones_and_by_those_who_know_the_new() -> None:
    lan = Lan(3)
    lan.run(20)
    running = lan.running()
    changed = lan.machines["edge-0"]
    assert changed.agent is not None
    changed.key = SigningKey.generate()
    changed.agent.take_key(changed.key)
    lan.run(20)
    for name in ("edge-1", "edge-0"):  # one after the other gets the state that names the new key
        lan.give(name, lan.placement, generation=2)
        lan.run(20)
        for machine in lan.machines.values():
            assert machine.agent is not None
            assert "silent" not in machine.agent.views.values()
    assert lan.running() == running
    assert lan.starts == 1, "nobody took over"
