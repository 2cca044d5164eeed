"""Whether what a model sees now is like what it was judged with: distances between distributions, with their counts.

Sources: population stability index: N. Siddiqi, Credit Risk Scorecards, 2006 (from 0.1 on a shift, from 0.25 on a large
one); the Kolmogorov-Smirnov distance: the largest difference of the cumulative shares, here at the reference's edges;
the Jensen-Shannon distance: J. Lin, Divergence Measures Based on the Shannon Entropy, IEEE Trans. Inf. Theory 37, 1991,
the root of the divergence to base 2; the chi-square test of homogeneity: K. Pearson 1900.

Rules: what is compared is counts, so it does not matter in which order or grouping they were merged. Edges that lie on
the bounds of a sketch's buckets (`snap_edge`) divide a sketch's samples exactly; others to within its relative error.
Too few samples decide nothing, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from skerry.spec.quality import MAX_CLASSES, OTHER, DriftLimits, ReferenceDistribution
from skerry.telemetry.chances import chi_square_tail, kolmogorov_tail
from skerry.telemetry.sketch import LARGEST, SCALE, SMALLEST, Sketch, counts_upto, sketch_of

Verdict = Literal["steady", "drifted", "few-samples"]
HALF = 0.5
"""Added to every bin before shares are made of them: a share of nothing has no logarithm (H. Jeffreys 1946)."""
MAX_BINS = 20


class Bin(msgspec.Struct, frozen=True):
    """A range of values, or a class, and how many samples of the reference and of what was seen are in it."""

    name: str
    reference: int
    seen: int


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How far what was seen of a feature is from its reference.

    `p` is how likely that is by chance. `distance` is the Kolmogorov-Smirnov distance of numbers, the Jensen-Shannon
    distance of classes. `bins` are what both were made of.
    """

    kind: Literal["numbers", "classes"]
    verdict: Verdict
    why: str
    samples: int
    reference_samples: int
    psi: float
    distance: float
    p: float
    bins: tuple[Bin, ...]


def snap_edge(value: float) -> float:
    """Return the bound of a sketch's bucket that is next to a value; 0 stays."""
    magnitude = abs(value)
    if magnitude < SMALLEST:
        return 0.0
    place = round(math.log2(min(magnitude, LARGEST)) * 2.0**SCALE)
    return math.copysign(math.exp2(place * 2.0**-SCALE), value)


def reference_of_numbers(samples: Iterable[float], *, bins: int = MAX_BINS) -> ReferenceDistribution:
    """Return a reference of finite samples, of about as many in each bin; edges are bounds of a sketch's buckets.

    Raises:
        ValueError: there is no sample.
    """
    ordered = sorted(sample for sample in samples if math.isfinite(sample))
    if not ordered:
        raise ValueError("there are no numbers to make a reference of")
    quantiles = (ordered[min(len(ordered) * k // bins, len(ordered) - 1)] for k in range(1, bins))
    edges = sorted({snap_edge(value) for value in quantiles})
    # By way of a sketch, as what is seen will be: so a sample on an edge falls to the same side of it.
    return ReferenceDistribution(edges=tuple(edges), counts=tuple(_counts(sketch_of(ordered), edges)))


def reference_of_classes(samples: Iterable[str]) -> ReferenceDistribution:
    """Return a reference of classes; beyond `MAX_CLASSES` the rarest are `OTHER`.

    Raises:
        ValueError: there is no sample.
    """
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample] = counts.get(sample, 0) + 1
    if not counts:
        raise ValueError("there are no classes to make a reference of")
    by_count = sorted(counts, key=lambda name: (-counts[name], name))
    kept = {name: counts[name] for name in by_count[:MAX_CLASSES]}
    if rest := sum(counts[name] for name in by_count[MAX_CLASSES:]):
        kept[OTHER] = kept.get(OTHER, 0) + rest
    return ReferenceDistribution(classes=dict(sorted(kept.items())))


def drift_of_numbers(reference: ReferenceDistribution, seen: Sketch, limits: DriftLimits) -> Drift:
    """Return how far numbers are from a reference with edges."""
    counts = _counts(seen, reference.edges)
    psi = population_stability(reference.counts, counts)
    distance = largest_difference(reference.counts, counts)
    p = kolmogorov_tail(distance, reference.total, seen.count)
    names = [f"<= {edge:.6g}" for edge in reference.edges] + [f"> {reference.edges[-1]:.6g}"]
    reasons = [
        f"{name} {value:.3f} is {limit:g} or more"
        for name, value, limit in (("psi", psi, limits.psi), ("ks", distance, limits.ks))
        if value >= limit
    ]
    verdict, why = _verdict(reasons, seen.count, limits)
    return Drift(
        kind="numbers",
        verdict=verdict,
        why=why,
        samples=seen.count,
        reference_samples=reference.total,
        psi=psi,
        distance=distance,
        p=p,
        bins=_bins(names, reference.counts, counts),
    )


def drift_of_classes(reference: ReferenceDistribution, seen: Mapping[str, int], limits: DriftLimits) -> Drift:
    """Return how far classes are from a reference; those that it does not know count as `OTHER`."""
    known = set(reference.classes)
    strange = sum(count for name, count in seen.items() if name not in known and name != OTHER)
    names = sorted(known - {OTHER})
    if OTHER in known or OTHER in seen or strange:
        names.append(OTHER)
    before = [reference.classes.get(name, 0) for name in names]
    after = [seen.get(name, 0) + (strange if name == OTHER else 0) for name in names]
    psi, distance = population_stability(before, after), jensen_shannon(before, after)
    reasons = [
        f"{name} {value:.3f} is {limit:g} or more"
        for name, value, limit in (("psi", psi, limits.psi), ("js", distance, limits.js))
        if value >= limit
    ]
    verdict, why = _verdict(reasons, sum(after), limits)
    return Drift(
        kind="classes",
        verdict=verdict,
        why=why,
        samples=sum(after),
        reference_samples=reference.total,
        psi=psi,
        distance=distance,
        p=chi_square_p(before, after),
        bins=_bins(names, before, after),
    )


def population_stability(reference: Sequence[int], seen: Sequence[int]) -> float:
    """Return the population stability index of counts in the same bins; 0 without samples of either."""
    if not sum(reference) or not sum(seen):
        return 0.0
    one, other = _shares(reference), _shares(seen)
    return math.fsum((b - a) * math.log(b / a) for a, b in zip(one, other, strict=True))


def largest_difference(reference: Sequence[int], seen: Sequence[int]) -> float:
    """Return the Kolmogorov-Smirnov distance of counts in the same rising bins; 0 without samples of either."""
    one, other = sum(reference), sum(seen)
    if not one or not other:
        return 0.0
    a = b = 0
    found = 0.0
    for left, right in zip(reference, seen, strict=True):
        a, b = a + left, b + right
        found = max(found, abs(a / one - b / other))
    return found


def jensen_shannon(reference: Sequence[int], seen: Sequence[int]) -> float:
    """Return the Jensen-Shannon distance to base 2 of counts of the same classes; 0 without samples of either."""
    one, other = sum(reference), sum(seen)
    if not one or not other:
        return 0.0
    terms: list[float] = []
    for left, right in zip(reference, seen, strict=True):
        p, q = left / one, right / other
        middle = (p + q) / 2
        terms += [share * math.log2(share / middle) / 2 for share in (p, q) if share]
    return math.sqrt(min(max(math.fsum(terms), 0.0), 1.0))


def chi_square_p(reference: Sequence[int], seen: Sequence[int]) -> float:
    """Return how likely both counts are of one distribution, by Pearson's test; 1 where nothing can be told."""
    pairs = [(a, b) for a, b in zip(reference, seen, strict=True) if a + b]
    one, other = sum(reference), sum(seen)
    if not one or not other or len(pairs) < 2:
        return 1.0
    total = one + other
    value = math.fsum(
        (count - (a + b) * of / total) ** 2 / ((a + b) * of / total)
        for a, b in pairs
        for count, of in ((a, one), (b, other))
    )
    return chi_square_tail(value, len(pairs) - 1)


def _counts(sketch: Sketch, edges: Sequence[float]) -> list[int]:
    upto = [0, *counts_upto(sketch, edges), sketch.count]
    return [after - before for before, after in pairwise(upto)]


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + HALF * len(counts)
    return [(count + HALF) / total for count in counts]


def _verdict(reasons: Sequence[str], samples: int, limits: DriftLimits) -> tuple[Verdict, str]:
    if samples < limits.min_samples:
        return "few-samples", f"{samples} of {limits.min_samples} samples that are needed"
    if reasons:
        return "drifted", " and ".join(reasons)
    return "steady", "every distance is below its limit"


def _bins(names: Sequence[str], reference: Sequence[int], seen: Sequence[int]) -> tuple[Bin, ...]:
    return tuple(Bin(*one) for one in zip(names, reference, seen, strict=True))
