"""Distances between distributions: as others compute them, the same in every grouping, and honest with few samples."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.checks_quality import check_reference
from skerry.spec.quality import MAX_CLASSES, OTHER, DriftLimits, Reference, ReferenceDistribution
from skerry.telemetry.chances import chi_square_tail, kolmogorov_tail
from skerry.telemetry.drift import (
    chi_square_p,
    drift_of_classes,
    drift_of_numbers,
    jensen_shannon,
    largest_difference,
    population_stability,
    reference_of_classes,
    reference_of_numbers,
    snap_edge,
)
from skerry.telemetry.sketch import counts_upto, merge_sketches, sketch_of

stats: Any = importlib.import_module("scipy.stats")
spatial: Any = importlib.import_module("scipy.spatial.distance")

LIMITS = DriftLimits()
counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=12)
numbers = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=200)


def normal(middle: float, many: int, seed: int) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(middle, 1.0) for _ in range(many)]


@given(st.floats(0, 500), st.integers(1, 60))
def test_the_tail_of_chi_square_is_as_scipy_has_it(value: float, degrees: int) -> None:
    assert chi_square_tail(value, degrees) == pytest.approx(
        float(stats.chi2.sf(value, degrees)), rel=1e-9, abs=1e-12
    )


@given(st.floats(0, 1), st.integers(1, 100_000), st.integers(1, 100_000))
def test_the_tail_of_kolmogorov_is_as_scipy_has_it(distance: float, one: int, other: int) -> None:
    root = (one * other / (one + other)) ** 0.5 * distance
    assert kolmogorov_tail(distance, one, other) == pytest.approx(float(stats.kstwobign.sf(root)), abs=1e-9)


@given(counts, st.randoms(use_true_random=False))
def test_distances_of_classes_are_as_scipy_has_them(one: list[int], source: random.Random) -> None:
    other = [source.randrange(1, 5000) for _ in one]
    before = [count + 1 for count in one]
    found: Any = stats.chi2_contingency([before, other], correction=False)
    assert chi_square_p(before, other) == pytest.approx(float(found.pvalue), rel=1e-6, abs=1e-12)
    expected = float(spatial.jensenshannon(before, other, base=2))
    assert jensen_shannon(before, other) == pytest.approx(expected, abs=1e-7)


@given(counts)
def test_a_distribution_is_no_distance_from_itself_nor_from_a_multiple_of_it(one: list[int]) -> None:
    many = [count * 7 for count in one]
    assert largest_difference(one, many) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(one, many) == pytest.approx(0, abs=1e-7)
    assert population_stability(one, one) == pytest.approx(0, abs=1e-12)


def test_the_distance_of_numbers_is_that_of_scipy_but_for_the_bins() -> None:
    reference, seen = normal(10, 5000, 1), normal(10.8, 3000, 2)
    found = drift_of_numbers(reference_of_numbers(reference), sketch_of(seen), LIMITS)
    true = stats.ks_2samp(reference, seen)
    # Twenty bins of 5 % each: between two edges the shares can be no further apart than one bin's.
    assert float(true.statistic) - 0.055 <= found.distance <= float(true.statistic) + 1e-9
    assert (found.verdict, found.samples, found.reference_samples) == ("drifted", 3000, 5000)
    assert "psi" in found.why or "ks" in found.why


@pytest.mark.rule("QUALITY-2")
def test_nothing_drifts_that_is_of_the_same_distribution_and_a_shift_does() -> None:
    reference = reference_of_numbers(normal(100, 4000, 3))
    assert drift_of_numbers(reference, sketch_of(normal(100, 2000, 4)), LIMITS).verdict == "steady"
    assert drift_of_numbers(reference, sketch_of(normal(103, 2000, 5)), LIMITS).verdict == "drifted"


@pytest.mark.rule("QUALITY-2")
def test_with_few_samples_nothing_is_decided_and_that_is_said() -> None:
    reference = reference_of_numbers(normal(0, 1000, 6))
    found = drift_of_numbers(reference, sketch_of(normal(50, 199, 7)), LIMITS)
    assert (found.verdict, found.why) == ("few-samples", "199 of 200 samples that are needed")
    assert drift_of_classes(ReferenceDistribution(classes={"a": 5}), {}, LIMITS).verdict == "few-samples"


@given(numbers)
def test_samples_fall_into_a_references_bins_as_the_reference_counted_them(samples: list[float]) -> None:
    whole = [float(round(sample)) for sample in samples]
    reference = reference_of_numbers(whole)
    assert reference.total == len(whole)
    assert not list(check_reference("r", Reference(features={"width": reference})))
    found = drift_of_numbers(reference, sketch_of(whole), LIMITS)
    assert tuple(one.seen for one in found.bins) == reference.counts
    assert found.psi == pytest.approx(0, abs=1e-12)


@pytest.mark.rule("QUALITY-1")
@given(numbers, st.integers(1, 7))
def test_drift_is_the_same_however_what_was_seen_is_grouped(samples: list[float], parts: int) -> None:
    reference = reference_of_numbers(normal(0, 500, 8))
    merged = merge_sketches(sketch_of(samples[first::parts]) for first in range(parts))
    assert drift_of_numbers(reference, merged, LIMITS) == drift_of_numbers(
        reference, sketch_of(samples), LIMITS
    )


def test_samples_on_snapped_edges_are_counted_exactly() -> None:
    edges = [snap_edge(value) for value in (0.5, 3.0, 70.0)]
    inside = [0.25, 0.49, 1.0, 2.9, 65.0, 500.0]
    assert counts_upto(sketch_of(inside), edges) == [sum(one <= edge for one in inside) for edge in edges]
    assert snap_edge(0.0) == 0.0
    assert snap_edge(-4.0) == -4.0


def test_classes_that_the_reference_does_not_know_are_other() -> None:
    reference = ReferenceDistribution(classes={"red": 500, "blue": 500})
    same = drift_of_classes(reference, {"red": 250, "blue": 250}, LIMITS)
    assert (same.verdict, [one.name for one in same.bins]) == ("steady", ["blue", "red"])
    strange = drift_of_classes(reference, {"red": 100, "blue": 100, "green": 200}, LIMITS)
    assert strange.verdict == "drifted"
    assert [(one.name, one.reference, one.seen) for one in strange.bins][-1] == (OTHER, 0, 200)
    assert strange.p < 1e-6


def test_a_reference_of_many_classes_keeps_the_most_common() -> None:
    names = [f"c{number:03}" for number in range(40) for _ in range(number + 1)]
    made = reference_of_classes(names)
    assert (len(made.classes), made.total) == (MAX_CLASSES + 1, len(names))
    assert made.classes["c039"] == 40
    with pytest.raises(ValueError, match="no classes"):
        reference_of_classes([])
    with pytest.raises(ValueError, match="no numbers"):
        reference_of_numbers([float("nan")])


def test_all_that_is_wrong_with_a_reference_is_said() -> None:
    features = {
        "both": ReferenceDistribution(edges=(1.0,), counts=(1, 1), classes={"a": 1}),
        "short": ReferenceDistribution(edges=(1.0, 2.0), counts=(1, 1)),
        "falling": ReferenceDistribution(edges=(2.0, 1.0), counts=(1, 1, 1)),
        "empty": ReferenceDistribution(edges=(2.0,), counts=(0, 0)),
        "score": ReferenceDistribution(classes={"a": 1}),
        "class": ReferenceDistribution(edges=(1.0,), counts=(1, 1)),
    }
    found = {problem.path for problem in check_reference("r", Reference(features=features, window="1m"))}
    assert found == {
        "r.window",
        "r.features.both",
        "r.features.short.counts",
        "r.features.falling.edges",
        "r.features.empty",
        "r.features.score.classes",
        "r.features.class.counts",
    }
