"""Verdicts of gates: proven, disproven, or neither, whatever the order in which samples come."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.rollout.gates import Exhibit, GateVerdict, judge_gate, judge_gates
from skerry.rollout.samples import Measured
from skerry.spec.gates import Compare, GateSpec
from skerry.spec.metrics import Mean, Rate, Value, histogram_of, mean_of

pytestmark = pytest.mark.rollout

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ERRORS = GateSpec(metric="errors", kind="rate", max_increase="20%")
P95 = GateSpec(metric="latency_s", kind="quantile", quantile=0.95, max_increase="10%")
SCORE = GateSpec(metric="score", kind="mean", max_decrease="0.02")


def seen(value: Value, *, site: str = "north", window: int = 0) -> Measured:
    begin = NOON + timedelta(minutes=5 * window)
    return Measured(site, begin, begin + timedelta(minutes=5), value)


def rate(bad: int, total: int, *, site: str = "north", window: int = 0) -> Measured:
    return seen(Rate(bad=bad, total=total), site=site, window=window)


def sites(bad: int, total: int, *, count: int = 10) -> list[Measured]:
    return [rate(bad, total, site=f"site-{n}") for n in range(count)]


@pytest.mark.parametrize("compare", ("site", "cohort"))
def test_a_release_that_is_clearly_worse_fails_and_one_as_good_passes(compare: Compare) -> None:
    gate = msgspec.structs.replace(ERRORS, compare=compare)
    assert judge_gate(gate, sites(400, 10_000), sites(200, 10_000)).outcome == "fail"
    assert judge_gate(gate, sites(200, 10_000), sites(200, 10_000)).outcome == "pass"
    assert judge_gate(gate, sites(4, 100), sites(2, 100)).outcome == "inconclusive"


def test_a_bound_stands_in_for_the_old_release() -> None:
    gate = msgspec.structs.replace(ERRORS, compare="bound", bound=0.02)
    assert [judge_gate(gate, sites(bad, 10_000), []).outcome for bad in (150, 240, 400)] == [
        "pass",
        "inconclusive",
        "fail",
    ]
    assert judge_gate(gate, sites(400, 10_000), [], bound=0.05).outcome == "pass"


def test_latencies_are_judged_by_their_quantile() -> None:
    chance = random.Random(5)

    def latencies(by: float) -> list[Measured]:
        return [
            seen(histogram_of([chance.lognormvariate(-3, 0.5) * by for _ in range(2000)]), site=f"site-{n}")
            for n in range(8)
        ]

    old = latencies(1.0)
    bound = msgspec.structs.replace(P95, compare="bound", bound=0.1133)
    for gate in (P95, msgspec.structs.replace(P95, compare="cohort"), bound):
        assert judge_gate(gate, latencies(1.3), old).outcome == "fail"
        assert judge_gate(gate, latencies(0.95), old).outcome == "pass"


def test_latencies_of_different_scales_are_compared_at_the_coarser_one() -> None:
    chance = random.Random(6)
    samples = [chance.lognormvariate(-3, 0.5) for _ in range(8000)]
    new, old = (
        [seen(histogram_of([1.5 * s for s in samples], scale=5))],
        [seen(histogram_of(samples, scale=8))],
    )
    assert judge_gate(P95, new, old).outcome == "fail"
    assert judge_gate(P95, old, new).outcome == "pass"


def test_scores_may_fall_by_as_much_as_is_allowed() -> None:
    chance = random.Random(7)

    def scores(mean: float) -> list[Measured]:
        return [
            seen(mean_of([chance.gauss(mean, 0.1) for _ in range(2000)], low=0, high=1), site=f"site-{n}")
            for n in range(5)
        ]

    old = scores(0.8)
    assert judge_gate(SCORE, scores(0.75), old).outcome == "fail"
    assert judge_gate(SCORE, scores(0.8), old).outcome == "pass"
    drift = msgspec.structs.replace(SCORE, max_increase="0.02")
    assert judge_gate(SCORE, scores(0.85), old).outcome == "pass"
    assert judge_gate(drift, scores(0.85), old).outcome == "fail"


def test_sites_that_are_bad_anyway_do_not_make_the_release_bad() -> None:
    # The new release has most of its traffic where errors are frequent: all together it looks three times as bad.
    new = [rate(900, 9_000, site="foundry"), rate(10, 1_000, site="office")]
    old = [rate(100, 1_000, site="foundry"), rate(90, 9_000, site="office")]
    assert judge_gate(ERRORS, new, old).outcome != "fail"
    assert judge_gate(msgspec.structs.replace(ERRORS, compare="cohort"), new, old).outcome == "fail"


def test_hours_that_are_bad_anyway_do_not_make_the_release_bad() -> None:
    new = [rate(900, 9_000, window=1), rate(10, 1_000, window=2)]
    old = [rate(100, 1_000, window=1), rate(90, 9_000, window=2)]
    assert judge_gate(ERRORS, new, old).outcome != "fail"


def test_windows_that_only_one_release_has_are_left_aside() -> None:
    new, old = [rate(20, 1_000), rate(900, 1_000, window=1)], [rate(20, 1_000), rate(0, 9_000, window=2)]
    verdict = judge_gate(ERRORS, new, old)
    assert verdict == judge_gate(ERRORS, new[:1], old[:1])
    assert verdict.samples == 1_000


def test_where_no_site_has_both_the_cohort_counts_or_the_bound() -> None:
    new, old = [rate(400, 10_000, site="a")], [rate(200, 10_000, site="b")]
    assert "cohort" in judge_gate(ERRORS, new, old).why
    assert judge_gate(ERRORS, new, old).outcome == "fail"
    bound = msgspec.structs.replace(ERRORS, bound=0.05)
    assert "beside a bound" in judge_gate(bound, new, old).why
    assert judge_gate(bound, new, old).outcome == "pass"


def test_late_samples_turn_a_pass_into_a_failure() -> None:
    new, old = sites(100, 10_000), sites(100, 10_000)
    late_new = [rate(900, 10_000, site=f"site-{n}", window=1) for n in range(10)]
    late_old = [rate(100, 10_000, site=f"site-{n}", window=1) for n in range(10)]
    gate = msgspec.structs.replace(ERRORS, max_increase="50%")
    assert judge_gate(gate, new, old).outcome == "pass"
    assert judge_gate(gate, new + late_new, old + late_old).outcome == "fail"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 40)), max_size=12), st.randoms()
)
@settings(max_examples=40)
def test_the_order_and_the_portions_of_samples_change_nothing(
    parts: list[tuple[int, int, int]], shuffler: random.Random
) -> None:
    new = [rate(bad, bad + 50, site=f"site-{site}", window=window) for site, window, bad in parts]
    old = [rate(bad // 2, bad + 70, site=f"site-{site}", window=window) for site, window, bad in parts]
    verdict = judge_gate(ERRORS, new, old)
    portions: list[Measured] = []
    for one in new:
        assert isinstance(one.value, Rate)
        bad, total = one.value.bad, one.value.total
        portions += [
            msgspec.structs.replace(one, value=Rate(bad=bad // 3, total=bad // 3)),
            msgspec.structs.replace(one, value=Rate(bad=bad - bad // 3, total=total - bad // 3)),
        ]
    shuffler.shuffle(portions)
    shuffler.shuffle(old)
    assert judge_gate(ERRORS, portions, old) == verdict


def test_scores_count_the_same_in_any_order_to_the_last_digit() -> None:
    chance = random.Random(9)
    new, old = (
        [
            seen(mean_of([chance.random() for _ in range(5)], low=0, high=1 + n % 2), site=f"site-{n % 7}")
            for n in range(60)
        ]
        for _ in range(2)
    )
    verdict = judge_gate(SCORE, new, old)
    for seed in range(3):
        random.Random(seed).shuffle(new)
        random.Random(seed).shuffle(old)
        assert judge_gate(SCORE, new, old) == verdict


@pytest.mark.parametrize(("policy", "outcome"), (("wait", "no_data"), ("pass", "pass"), ("fail", "fail")))
def test_without_data_the_gate_says_what_it_was_told_to(policy: str, outcome: str) -> None:
    gate = msgspec.structs.replace(ERRORS, no_data=policy)
    for new, old in (([], sites(1, 100)), ([rate(0, 0)], []), (sites(1, 100), [])):
        verdict = judge_gate(gate, new, old)
        assert verdict.outcome == outcome
        assert "nothing was measured" in verdict.why


def test_what_is_reported_as_another_kind_is_no_data_and_is_named() -> None:
    verdict = judge_gate(P95, sites(1, 100), sites(1, 100))
    assert verdict.outcome == "no_data"
    assert "of another kind" in verdict.why


def test_nothing_passes_on_too_few_samples_but_what_is_proven_worse_fails() -> None:
    gate = msgspec.structs.replace(ERRORS, min_samples=200_000)
    assert judge_gate(gate, sites(200, 10_000), sites(200, 10_000)).outcome == "inconclusive"
    assert "of at least 200,000 samples" in judge_gate(gate, sites(200, 10_000), sites(200, 10_000)).why
    assert judge_gate(gate, sites(600, 10_000), sites(200, 10_000)).outcome == "fail"


def test_a_share_of_what_may_be_below_zero_is_not_judged() -> None:
    gate = msgspec.structs.replace(SCORE, max_decrease="5%")
    value = mean_of([0.1, -0.2], low=-1, high=1)
    verdict = judge_gate(gate, [seen(value)], [seen(value)])
    assert (verdict.outcome, "below 0" in verdict.why) == ("inconclusive", True)


def test_means_with_other_bounds_are_compared_on_common_ground() -> None:
    chance = random.Random(2)
    samples = [chance.gauss(0.5, 0.1) for _ in range(4000)]
    new, old = mean_of(samples, low=-1, high=1), mean_of(samples, low=0, high=3)
    gate = msgspec.structs.replace(SCORE, max_decrease="0.1")
    assert judge_gate(gate, [seen(new)], [seen(old)]).outcome == "pass"
    worse = mean_of([sample - 0.3 for sample in samples], low=-1, high=1)
    assert judge_gate(gate, [seen(worse)], [seen(old)]).outcome == "fail"


def test_the_more_verdicts_there_are_the_more_evidence_each_needs_to_fail() -> None:
    new, old = sites(275, 10_000), sites(200, 10_000)
    assert judge_gate(ERRORS, new, old).outcome == "fail"
    assert judge_gate(ERRORS, new, old, among=100_000).outcome == "inconclusive"


def test_all_bad_fails_and_extreme_counts_are_judged() -> None:
    assert judge_gate(ERRORS, sites(500, 500), sites(0, 500)).outcome == "fail"
    # Where all of the old release's are bad, a fifth more than that is nothing the new one could exceed.
    assert judge_gate(ERRORS, sites(500, 500), sites(500, 500)).outcome == "pass"
    assert judge_gate(ERRORS, sites(10**13, 10**15), sites(10**13, 10**15)).outcome == "pass"
    assert judge_gate(ERRORS, sites(1, 1, count=2), sites(0, 1, count=2)).outcome == "inconclusive"
    everything = mean_of([1.0] * 2000, low=0, high=1)
    assert judge_gate(SCORE, [seen(everything)], [seen(everything)]).outcome == "pass"


def test_one_gate_that_fails_fails_all_and_all_must_pass() -> None:
    good, worse = tuple(sites(200, 10_000)), tuple(sites(400, 10_000))
    passing, failing = Exhibit(ERRORS, good, good), Exhibit(ERRORS, worse, good)
    unsure, empty = Exhibit(ERRORS, tuple(sites(2, 100)), tuple(sites(2, 100))), Exhibit(ERRORS, ())
    assert judge_gates([passing, passing]).outcome == "pass"
    assert judge_gates([passing, unsure, failing, empty]).outcome == "fail"
    assert judge_gates([passing, unsure, empty]).outcome == "inconclusive"
    assert judge_gates([passing, empty]).outcome == "no_data"
    assert judge_gates([]).outcome == "pass"
    assert judge_gates([passing, failing]).why.count("worse than allowed") == 1


def test_the_why_says_the_figures() -> None:
    verdict = judge_gate(ERRORS, sites(400, 10_000), sites(200, 10_000))
    assert verdict.why.startswith(
        "errors: 4 % beside 2 % (10 sites with both releases, 100,000 samples), change at least "
    )
    assert verdict.why.endswith("allowed +20%: worse than allowed, with 95 % confidence")
    assert verdict.interval is not None
    assert verdict.interval.low is not None
    assert verdict.interval.high is not None
    assert 0.7 < verdict.interval.low < 1 < verdict.interval.high < 1.3


verdicts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(60, 3000))


@given(verdicts)
@settings(max_examples=40)
def test_the_interval_agrees_with_the_verdict(some: tuple[int, int, int]) -> None:
    bad, known, total = some
    gate = msgspec.structs.replace(ERRORS, max_increase="0.01", min_samples=1)
    verdict: GateVerdict = judge_gate(gate, [rate(bad, total)], [rate(known, total)])
    assert verdict.interval is not None
    low, high = verdict.interval.low, verdict.interval.high
    # An end is rounded towards saying less: it may fall short of the limit where the verdict does not, never pass it.
    if low is not None and low > 0.01:
        assert verdict.outcome == "fail"
    if high is not None and high < 0.01:
        assert verdict.outcome == "pass"
    assert low is None or high is None or low < high


measured = st.builds(
    Measured,
    st.sampled_from(["a", "b"]),
    st.just(NOON),
    st.just(NOON + timedelta(hours=1)),
    st.sampled_from(
        [
            Rate(bad=0, total=0),
            Rate(bad=3, total=3),
            Rate(bad=1, total=1 << 62),
            mean_of([], low=0, high=1),
            mean_of([-1e300, 1e300], low=-1e300, high=1e300),
            mean_of([0.0, 0.5], low=0, high=1e-9),
            histogram_of([]),
            histogram_of([0.0, 0.0]),
            histogram_of([1e-300, 1.0, 1e300]),
            histogram_of([0.01, 0.02], scale=20),
        ]
    ),
)
arbitrary_gates = st.builds(
    GateSpec,
    metric=st.just("m"),
    kind=st.sampled_from(["rate", "mean", "quantile"]),
    quantile=st.sampled_from([None, -1.0, 0.0, 0.5, 0.95, 1.0, 2.0]),
    compare=st.sampled_from(["site", "cohort", "bound"]),
    max_increase=st.sampled_from([None, "0", "10%", "999999999999%", "0.5"]),
    max_decrease=st.sampled_from([None, "0", "100%", "999999999999%", "999999999999"]),
    bound=st.sampled_from([None, 0.0, -1.0, 0.5, 1e300]),
    min_samples=st.just(1),
    confidence=st.sampled_from([-1.0, 0.0, 0.95, 1.0, 5.0]),
)


@given(arbitrary_gates, st.lists(measured, max_size=4), st.lists(measured, max_size=4))
@settings(max_examples=60)
def test_every_gate_has_a_verdict_on_everything(
    gate: GateSpec, new: list[Measured], old: list[Measured]
) -> None:
    verdict = judge_gate(gate, new, old)
    assert verdict.outcome in ("pass", "fail", "inconclusive", "no_data")
    assert verdict.why
    assert "nan" not in verdict.why
    assert judge_gate(gate, list(reversed(new)), old) == verdict


def test_a_mean_beside_a_bound_is_judged() -> None:
    gate = msgspec.structs.replace(SCORE, compare="bound", bound=0.8)
    chance = random.Random(4)

    def score(mean: float) -> Mean:
        return mean_of([chance.gauss(mean, 0.1) for _ in range(4000)], low=0, high=1)

    assert [judge_gate(gate, [seen(score(mean))], []).outcome for mean in (0.7, 0.78, 0.8)] == [
        "fail",
        "inconclusive",
        "pass",
    ]
