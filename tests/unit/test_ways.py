"""Which way each blob takes: the cheapest, and no waiting for one that costs more than it saves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skerry.delivery.relatives import Base
from skerry.delivery.ways import (
    ASSUMED_RATE,
    LIKELY_SHARE,
    LIKELY_SHARE_FROM_NOTHING,
    LONGEST_WAIT_S,
    WORTH,
    DeltaMaking,
    DeltaOffer,
    Offered,
    WantedBlob,
    Way,
    WaysPlan,
    plan_ways,
)

pytestmark = pytest.mark.delivery

MB = 1 << 20
NAMES = st.sampled_from("abcdef")
SIZES = st.one_of(st.integers(0, 100), st.integers(0, 1 << 33))
BASES = st.sampled_from(((), ("x",), ("x", "y")))
RATES = st.one_of(st.none(), st.floats(0, 1e9))
LEFT_S = st.one_of(st.floats(0, 2000), st.just(math.inf))


@st.composite
def blobs(draw: st.DrawFn) -> list[WantedBlob]:
    found: list[WantedBlob] = []
    for name in draw(st.lists(NAMES, unique=True)):
        size = draw(SIZES)
        found.append(WantedBlob(name, size, draw(st.integers(0, size))))
    return found


@st.composite
def offers(draw: st.DrawFn) -> Offered:
    available: list[DeltaOffer] = []
    for number in range(draw(st.integers(0, 6))):
        size = draw(SIZES)
        held = draw(st.integers(0, size))
        available.append(DeltaOffer(draw(NAMES), draw(BASES), f"delta {number}", size, held))
    making = draw(st.lists(st.builds(DeltaMaking, NAMES, BASES, LEFT_S), max_size=6))
    refused = draw(st.sets(st.sampled_from([f"delta {number}" for number in range(6)])))
    return Offered(available, making, refused)


@given(
    wanted=blobs(),
    offered=offers(),
    rate=RATES,
    waited=st.dictionaries(NAMES, st.floats(0, 2000)),
)
def test_every_blob_has_one_way_or_a_wait_and_no_way_costs_more_than_the_blob(
    wanted: list[WantedBlob], offered: Offered, rate: float | None, waited: dict[str, float]
) -> None:
    plan = plan_ways(wanted, offered, rate=rate, waited_s=waited)
    named = [way.blob.digest for way in plan.ways]
    assert sorted([*named, *plan.waits]) == sorted(blob.digest for blob in wanted)
    assert named == [blob.digest for blob in wanted if blob.digest not in plan.waits], "in their order"
    assert bool(plan.waits) == bool(plan.wait_s)
    by_delta = {offer.delta: offer for offer in offered.offers}
    for way in plan.ways:
        rest = way.blob.size_bytes - way.blob.held_bytes
        usable = [
            offer.size_bytes - offer.held_bytes
            for offer in offered.offers
            if offer.target == way.blob.digest and offer.delta not in offered.refused
        ]
        if not way.delta:
            assert (way.left_bytes, way.base, way.delta_bytes) == (rest, (), 0)
            assert all(left > rest * WORTH for left in usable)
            continue
        offer = by_delta[way.delta]
        assert offer.target == way.blob.digest
        assert way.delta not in offered.refused
        assert (way.base, way.delta_bytes) == (offer.base, offer.size_bytes)
        assert way.left_bytes == offer.size_bytes - offer.held_bytes == min(usable) <= rest * WORTH


def plan_of(
    blob: WantedBlob,
    *offered: DeltaOffer,
    making: tuple[DeltaMaking, ...] = (),
    rate: float | None = None,
    waited_s: Mapping[str, float] | None = None,
) -> WaysPlan:
    return plan_ways([blob], Offered(offered, making), rate=rate, waited_s=waited_s or {})


def way_of(blob: WantedBlob, *offered: DeltaOffer) -> Way:
    (way,) = plan_of(blob, *offered).ways
    return way


BLOB = WantedBlob("blob", 100 * MB)
FROM_OLD = DeltaOffer("blob", ("old",), "d1", 10 * MB)
PACKED = DeltaOffer("blob", (), "d2", 60 * MB)


def test_the_smallest_is_taken_and_it_is_said_what_it_is() -> None:
    assert way_of(BLOB).why == "in full"
    assert (way_of(BLOB, PACKED).delta, way_of(BLOB, PACKED).why) == ("d2", "compressed")
    for order in ((PACKED, FROM_OLD), (FROM_OLD, PACKED)):
        assert (way_of(BLOB, *order).delta, way_of(BLOB, *order).why) == ("d1", "by delta")


@pytest.mark.parametrize(("held_mb", "delta"), ((0, "d1"), (85, "d1"), (89, "d1"), (90, ""), (95, "")))
def test_a_begun_blob_is_left_only_for_a_delta_that_costs_less_than_its_rest(
    held_mb: int, delta: str
) -> None:
    assert way_of(WantedBlob("blob", 100 * MB, held_mb * MB), FROM_OLD).delta == delta


def test_a_begun_delta_is_gone_on_with_though_a_smaller_one_has_come() -> None:
    begun = DeltaOffer("blob", ("older",), "d0", 12 * MB, held_bytes=8 * MB)
    assert way_of(BLOB, FROM_OLD, begun).delta == "d0"
    barely = DeltaOffer("blob", ("older",), "d0", 12 * MB, held_bytes=1 * MB)
    assert way_of(BLOB, FROM_OLD, barely).delta == "d1"


def test_a_delta_that_is_here_already_costs_nothing() -> None:
    here = DeltaOffer("blob", ("old",), "d3", 20 * MB, held_bytes=20 * MB)
    assert (way_of(BLOB, FROM_OLD, here).delta, way_of(BLOB, FROM_OLD, here).left_bytes) == ("d3", 0)


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────


def saves_s(size: int, held: int, base: Base, rate: float | None) -> float:
    """Return for how long a delta to come may be waited for, as the rule has it."""
    share = LIKELY_SHARE if base else LIKELY_SHARE_FROM_NOTHING
    return min(LONGEST_WAIT_S, (size - held - share * size) / (rate or ASSUMED_RATE))


@pytest.mark.rule("DELTA-5")
@given(
    size=SIZES,
    held=st.floats(0, 1),
    base=BASES,
    rate=RATES,
    said=st.lists(LEFT_S, min_size=1, max_size=8),
    most=st.sampled_from((0.5, 15.0, 1e9)),
)
@example(size=1 << 33, held=0.0, base=("x",), rate=0.001, said=[0.0], most=15.0)
@example(size=1 << 33, held=0.0, base=("x",), rate=0.001, said=[899.0, 0.0], most=15.0)
@example(size=3 * MB, held=0.0, base=("x",), rate=None, said=[0.0], most=15.0)
def test_a_hub_that_always_says_soon_holds_a_host_up_for_no_longer_than_the_delta_saves(
    size: int, held: float, base: Base, rate: float | None, said: list[float], most: float
) -> None:
    blob = WantedBlob("blob", size, int(size * held))
    waited, rounds = 0.0, 0
    while True:
        soon = DeltaMaking("blob", base, said[rounds % len(said)])
        plan = plan_of(blob, making=(soon,), rate=rate, waited_s={"blob": waited})
        if plan.ways:
            break
        assert plan.waits == ("blob",)
        waited += min(plan.wait_s, most)
        rounds += 1
        assert rounds < 3000
    assert waited <= max(0.0, saves_s(size, blob.held_bytes, base, rate))
    assert waited <= LONGEST_WAIT_S
    assert plan.ways[0].left_bytes == size - blob.held_bytes, "then it comes in full"


@pytest.mark.rule("DELTA-5")
def test_the_longer_it_was_waited_for_the_less_often_it_is_asked() -> None:
    huge, soon = WantedBlob("blob", 1 << 33), (DeltaMaking("blob", ("x",), 0.0),)
    waited, rounds = 0.0, 0
    while (plan := plan_of(huge, making=soon, rate=1000.0, waited_s={"blob": waited})).waits:
        waited += plan.wait_s
        rounds += 1
    assert 600 <= waited <= LONGEST_WAIT_S
    assert rounds < 40


@pytest.mark.rule("DELTA-5")
@given(size=SIZES, share=st.floats(0.5, 1), rate=RATES)
def test_what_saves_nothing_is_not_waited_for(size: int, share: float, rate: float | None) -> None:
    soon = (DeltaMaking("blob", ("old",), 0.0), DeltaMaking("blob", (), 0.0))
    half_here = WantedBlob("blob", size, math.ceil(size * share))
    assert not plan_of(half_here, making=soon, rate=rate).waits
    small = DeltaOffer("blob", ("old",), "d", size // 2)
    assert not plan_of(WantedBlob("blob", size), small, making=soon, rate=rate).waits


@pytest.mark.rule("DELTA-5")
def test_a_delta_that_takes_longer_than_it_saves_is_not_waited_for() -> None:
    # 100 MB at 1 MB/s: half of it is 50 s.
    for left_s, waits in ((0.0, True), (49.0, True), (51.0, False), (math.inf, False)):
        soon = (DeltaMaking("blob", ("old",), left_s),)
        assert bool(plan_of(BLOB, making=soon, rate=float(MB)).waits) == waits, left_s
        assert bool(plan_of(BLOB, making=soon).waits) == waits, "a rate nobody knows is taken to be 1 MB/s"
    soon = (DeltaMaking("blob", ("old",), 40.0),)
    assert not plan_of(BLOB, making=soon, rate=2.0 * MB).waits, "on a faster link it saves half the time"
    assert plan_of(BLOB, making=soon, rate=0.0).waits


def test_the_soonest_that_is_worth_it_says_for_how_long_to_wait() -> None:
    soon = (DeltaMaking("blob", ("old",), 30.0), DeltaMaking("blob", (), 12.0), DeltaMaking("other", (), 1.0))
    assert plan_of(BLOB, making=soon, rate=float(MB)).wait_s == 12.0
    assert plan_of(BLOB, making=soon[:1], rate=float(MB)).wait_s == 30.0
    two = plan_ways(
        [BLOB, WantedBlob("small", 100)],
        Offered([], [soon[0], DeltaMaking("small", ("x",), 0.0)]),
        rate=float(MB),
        waited_s={},
    )
    assert (two.waits, [way.blob.digest for way in two.ways]) == (("blob",), ["small"])
