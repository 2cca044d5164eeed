"""What a host gives up when its buffer is full, and what has arrived at the hub."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.telemetry.received import MAX_RANGES, Ranges, add_number, missing
from skerry.telemetry.room import PRIORITIES, GiveUp, KeptBlock, plan_room

KEPT = st.builds(
    KeptBlock,
    st.integers(1, 10**6),
    st.sampled_from(PRIORITIES),
    st.integers(0, 10**9),
    st.sampled_from([0, 60, 600, 3600]),
    st.integers(1, 10_000),
    st.booleans(),
)


def test_what_fits_stays_as_it_is() -> None:
    assert plan_room([KeptBlock(1, "metrics", 0, 60, 100)], 100) == GiveUp()


@pytest.mark.rule("TELEMETRY-4")
def test_detail_goes_before_anything_is_dropped_and_the_lowest_priority_first() -> None:
    quality, metrics = KeptBlock(1, "quality", 0, 60, 100), KeptBlock(2, "metrics", 50, 60, 100)
    newer, text = KeptBlock(3, "metrics", 90, 60, 100), KeptBlock(4, "logs", 0, 0, 100)
    assert plan_room([quality, newer, metrics, text], 50).coarsen == ((metrics, 600), (newer, 600))
    coarser = [metrics._replace(resolution_s=600), newer]
    assert plan_room([quality, *coarser, text], 50).coarsen == ((newer, 600),)
    coarsest = [metrics._replace(resolution_s=3600), newer._replace(resolution_s=3600)]
    assert plan_room([quality, *coarsest, text], 50).coarsen == ((quality, 600),)


@pytest.mark.rule("TELEMETRY-4")
def test_then_the_oldest_of_what_matters_least_goes_and_no_more_than_has_to() -> None:
    alert, quality = KeptBlock(1, "alerts", 0, 0, 100), KeptBlock(2, "quality", 0, 3600, 100)
    old, new = KeptBlock(3, "metrics", 0, 3600, 100), KeptBlock(4, "metrics", 60, 3600, 100)
    assert plan_room([alert, quality, new, old], 300) == GiveUp(drop=(old,))
    assert plan_room([alert, quality, new, old], 150) == GiveUp(drop=(old, new, quality))


@given(st.lists(KEPT, max_size=20), st.integers(0, 50_000))
def test_nothing_that_is_on_its_way_is_touched(kept: list[KeptBlock], most: int) -> None:
    plan = plan_room(kept, most)
    assert not any(block.sealed for block in (*plan.drop, *(one for one, _ in plan.coarsen)))
    if plan.drop:
        assert not plan.coarsen


@pytest.mark.rule("TELEMETRY-1")
@given(st.permutations(list(range(1, 40))), st.randoms())
def test_each_number_is_new_once_in_whatever_order_they_come(
    numbers: list[int], chance: random.Random
) -> None:
    twice = [*numbers, *numbers]
    chance.shuffle(twice)
    ranges: Ranges = ()
    new: list[int] = []
    for number in twice:
        ranges, fresh = add_number(ranges, number)
        new += [number] if fresh else []
    assert sorted(new) == list(range(1, 40))
    assert ranges == ((1, 39),)
    assert missing(ranges) == 0


def test_what_is_missing_is_counted_and_old_gaps_are_closed() -> None:
    ranges: Ranges = ()
    for number in range(2, 2 * MAX_RANGES + 20, 2):
        ranges, fresh = add_number(ranges, number)
        assert fresh
    assert len(ranges) == MAX_RANGES
    assert add_number(ranges, 3)[1] is False
    late, fresh = add_number(ranges, ranges[-1][0] - 1)
    assert fresh
    assert missing(late) < missing(ranges)
    assert missing(((1, 3), (5, 5))) == 1
    assert missing(()) == 0
