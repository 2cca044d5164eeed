"""Two machines with one identity are found, and one machine never is, whatever is lost, delayed or put back."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.trust.cloning import KEPT_STRETCHES, Forked, Lineage, decide_lineage

pytestmark = pytest.mark.trust

JUMP = 1_000


class Answer:
    """What the hub says: the newest number it has, and whose it is when that is another session."""

    def __init__(self, session: str, acknowledged: int, newest: str) -> None:
        self.session, self.acknowledged, self.newest = session, acknowledged, newest


class Hub:
    """Takes reports above its number, as the hub does."""

    def __init__(self) -> None:
        self.number = 0
        self.lineage = Lineage()
        self.forked: Forked | None = None

    def take(self, session: str, number: int, heard: str, *, from_before: bool = False) -> Answer:
        if number > self.number and from_before:
            self.number = number  # what a restored hub takes of an older report says nothing of sessions
        elif number > self.number and self.forked is None:
            decided = decide_lineage(self.lineage, session, number, heard)
            if isinstance(decided, Forked):
                self.forked = decided
            else:
                self.number, self.lineage = number, decided
        newest = self.lineage.newest
        other = newest.name if newest is not None and newest.session != session else ""
        return Answer(session, self.number, other)


class Agent:
    """One run of an agent on a disk that keeps the numbers."""

    _names = itertools.count()

    def __init__(self, disk: list[int]) -> None:
        self.session = f"{next(self._names):08x}-0"
        self.disk = disk
        self.number = disk[0] = disk[0] + JUMP
        self.heard = ""

    def send(self, leap: int = 1) -> tuple[str, int, str]:
        self.number += leap
        self.disk[0] = max(self.disk[0], self.number)
        return self.session, self.number, self.heard

    def hear(self, answer: Answer) -> None:
        if answer.session != self.session:
            return
        self.heard = answer.newest or self.heard
        if answer.acknowledged > self.number or (answer.acknowledged == self.number and answer.newest):
            self.number = self.disk[0] = answer.acknowledged + JUMP

    def exchange(self, hub: Hub) -> None:
        self.hear(hub.take(*self.send()))


STEPS = {
    "send": 8, "take": 2, "take late": 6, "hear": 4, "exchange": 8,
    "restart": 1, "lose": 1, "put back": 1, "back up": 1, "restore": 0.3,
}  # fmt: skip


@pytest.mark.rule("IDENTITY-1")
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_one_machine_is_never_taken_for_two(seed: int) -> None:
    chance = random.Random(seed)
    hub, disk = Hub(), [chance.randrange(5) * JUMP]
    agent, copies = Agent(disk), [0]
    air: list[tuple[str, int, str]] = []
    of_now = 0  # the first report in the air that was sent since the hub was restored last
    answers: list[Answer] = []
    backups = [(0, Lineage())]
    for step in chance.choices(list(STEPS), list(STEPS.values()), k=100):
        match step:
            case "send":
                air.append(agent.send(chance.choice((1, 2 * JUMP))))
            case "take" if air:  # also long after, also again
                place = chance.randrange(len(air))
                answers.append(hub.take(*air[place], from_before=place < of_now))
            case "take late" if late := [at for at, report in enumerate(air) if report[1] > hub.number]:
                place = min(late, key=lambda at: air[at][1])
                answers.append(hub.take(*air[place], from_before=place < of_now))
            case "hear" if answers:  # also late, and in any order
                agent.hear(chance.choice(answers))
            case "exchange":
                agent.exchange(hub)
            case "restart":
                copies.append(disk[0])
                agent = Agent(disk)
            case "lose":
                disk = [chance.randrange(50) * JUMP]
                agent = Agent(disk)
            case "put back":
                disk = [chance.choice(copies)]
                agent = Agent(disk)
            case "back up":
                backups.append((hub.number, hub.lineage))
            case "restore":
                hub.number, hub.lineage = chance.choice(backups)
                of_now = len(air)
            case _:
                pass
        assert hub.forked is None


@pytest.mark.rule("IDENTITY-1")
@settings(deadline=None)
@given(
    before=st.integers(0, 20),
    original_runs_on=st.booleans(),
    turns=st.lists(st.booleans(), max_size=30),
    restarts=st.integers(0, KEPT_STRETCHES),
)
def test_two_machines_are_found_once_each_has_answered_to_what_the_other_caused(
    before: int, original_runs_on: bool, turns: list[bool], restarts: int
) -> None:
    hub, disk = Hub(), [0]
    original = Agent(disk)
    for _ in range(before):
        original.exchange(hub)
    for _ in range(restarts):
        original = Agent(disk)
        original.exchange(hub)
    copy = Agent(list(disk))
    if not original_runs_on:
        original = Agent(disk)
    for turn in turns:
        (original if turn else copy).exchange(hub)
    for _ in range(6):
        original.exchange(hub)
        copy.exchange(hub)
    assert hub.forked is not None
    assert {hub.forked.session, hub.forked.other} == {original.session, copy.session}


def test_a_machine_put_back_with_its_memory_is_not_taken_for_two() -> None:
    hub, disk = Hub(), [0]
    first = Agent(disk)
    first.exchange(hub)
    kept = (first.number, first.heard, disk[0])
    second = Agent(disk)
    for _ in range(3):
        second.exchange(hub)
    first.number, first.heard, disk[0] = kept  # the snapshot runs on where it was; the second is gone
    for _ in range(10):
        first.exchange(hub)
    third = Agent(disk)
    third.exchange(hub)
    assert hub.forked is None
    assert [stretch.session for stretch in hub.lineage.stretches] == [
        each.session for each in (first, second, first, third)
    ]


def test_an_agent_that_names_no_session_is_left_alone_and_what_is_kept_is_bounded() -> None:
    lineage = Lineage()
    assert decide_lineage(lineage, "", 1, "") == lineage
    for number in range(1, 3 * KEPT_STRETCHES):
        decided = decide_lineage(lineage, f"{number:08x}-0", number, "")
        assert isinstance(decided, Lineage)
        lineage = decided
    assert len(lineage.stretches) == KEPT_STRETCHES


def test_the_reason_names_the_marks_of_both_machines() -> None:
    assert "machines aaaaaaaa and bbbbbbbb" in Forked(session="bbbbbbbb-1", other="aaaaaaaa-2").why
    assert "both marked aaaaaaaa" in Forked(session="aaaaaaaa-1", other="aaaaaaaa-2").why
