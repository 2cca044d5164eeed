"""What was measured, sorted for a gate: which samples are compared with which, and how.

Values of one site and window are one stratum. At the same site only windows that both releases have are compared.
Where no site has such a window, a gate with `compare: site` compares with the bound it states, else with the cohort.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.rollout.comparing import Bounds, Comparison, MeanAlone, MeansBySite, MeansOfCohorts
from skerry.rollout.quantiles import QuantileAlone, QuantilesBySite, QuantilesOfCohorts, sides_of
from skerry.rollout.sequences import Arm, Stratum
from skerry.spec.gates import MAX_QUANTILE, MIN_QUANTILE, GateSpec, limits_of
from skerry.spec.metrics import (
    Histogram,
    Mean,
    Quality,
    Rate,
    Value,
    merge_histograms,
    merge_means,
    merge_rates,
)

_kinds: Mapping[Quality, type[Value]] = {"rate": Rate, "mean": Mean, "quantile": Histogram}

SECOND_PART = 0.2
"""Of the probability of an error, for comparing at the same site, what belongs to doing so in another way."""

Key = tuple[str, datetime, datetime]
Strata = Mapping[Key, tuple[Value, ...]]


class Measured(msgspec.Struct, frozen=True):
    """One value of one host at a site, of the event time from `begin` up to `end`. Each is handed over once."""

    site: str
    begin: datetime
    end: datetime
    value: Value


class Sighting(msgspec.Struct, frozen=True):
    """What a gate can go by: the comparison, or why there is none; `unfit` when samples would not help.

    `samples` are those of the new release that are compared; `part` of the probability of an error belongs to this
    way of comparing; `bound` is the number it is compared with, if it is one.
    """

    samples: int
    part: float = 1.0
    how: str = ""
    comparison: Comparison | None = None
    bound: float | None = None
    why: str = ""
    unfit: bool = False


def sight(gate: GateSpec, new: Sequence[Measured], old: Sequence[Measured], bound: float | None) -> Sighting:
    """Return what a gate can go by; `bound` is the number it states or was given."""
    # A gate that may come to be compared in two ways has two chances to be wrong, and shares them out.
    part = 1 - SECOND_PART if gate.compare == "site" else 1.0
    fresh, known = _strata(gate, new), _strata(gate, old)
    if not fresh:
        others = ": what came is of another kind" if new else " of the new release"
        return Sighting(0, why=f"nothing was measured{others}")
    bounds = _bounds([*fresh.values(), *known.values()])
    if bounds.low < 0 and any(limit.relative for limit in limits_of(gate)):
        return Sighting(0, why="a share of what may be below 0 says nothing: write a number", unfit=True)
    shared = sorted(fresh.keys() & known.keys())
    if gate.compare == "site" and shared:
        count = sum(_count(fresh[key]) for key in shared)
        sites = len({site for site, _, _ in shared})
        how = f"{sites} {'site' if sites == 1 else 'sites'} with both releases"
        return Sighting(
            count, part, how, _by_site(gate, [(fresh[key], known[key]) for key in shared], bounds)
        )
    part = SECOND_PART if gate.compare == "site" else 1.0
    count = sum(map(_count, fresh.values()))
    if gate.compare == "bound" or (gate.compare == "site" and bound is not None):
        if bound is None:
            return Sighting(count, why="there is no bound to compare with", unfit=True)
        return Sighting(count, part, "beside a bound", _alone(gate, _flat(fresh), bounds), bound)
    if not known:
        return Sighting(count, why="nothing was measured of the old release")
    how = "beside the old release's cohort"
    return Sighting(count, part, how, _of_cohorts(gate, _flat(fresh), _flat(known), bounds))


def _strata(gate: GateSpec, measured: Iterable[Measured]) -> Strata:
    wanted: type[Value] = _kinds[gate.kind]
    strata: dict[Key, list[Value]] = {}
    for one in measured:
        if isinstance(one.value, wanted) and _count([one.value]):
            strata.setdefault((one.site, one.begin, one.end), []).append(one.value)
    return {key: tuple(strata[key]) for key in sorted(strata)}


def _flat(strata: Strata) -> tuple[Value, ...]:
    return tuple(value for values in strata.values() for value in values)


def _count(values: Iterable[Value]) -> int:
    return sum(value.count if isinstance(value, Mean) else value.total for value in values)


def _bounds(groups: Iterable[Iterable[Value]]) -> Bounds:
    """Return bounds that hold every mean; a rate's are 0 and 1."""
    means = [value for values in groups for value in values if isinstance(value, Mean)]
    if not means:
        return Bounds(0.0, 1.0)
    return Bounds(min(mean.low for mean in means), max(mean.high for mean in means))


def _arm(values: Sequence[Value], bounds: Bounds) -> Arm:
    """Return the sums of rates or means; whole numbers are added before they become shares."""
    rates = [value for value in values if isinstance(value, Rate)]
    means: dict[tuple[float, float], list[Mean]] = {}
    for value in values:
        if isinstance(value, Mean):
            means.setdefault((value.low, value.high), []).append(value)
    arms = [bounds.arm(merge_means(means[key])) for key in sorted(means)]
    if rates:
        arms.append(bounds.arm(merge_rates(rates)))
    return Arm(*(math.fsum(column) for column in zip(*arms, strict=True)))


def _quantile(gate: GateSpec) -> float:
    return min(max(gate.quantile or 0.5, MIN_QUANTILE), MAX_QUANTILE)


def _histogram(values: Sequence[Value]) -> Histogram:
    return merge_histograms(value for value in values if isinstance(value, Histogram))


def _by_site(
    gate: GateSpec, pairs: Sequence[tuple[Sequence[Value], Sequence[Value]]], bounds: Bounds
) -> Comparison:
    if gate.kind == "quantile":
        sides = [sides_of(_histogram(new), _histogram(old)) for new, old in pairs]
        return QuantilesBySite(sides, _quantile(gate))
    return MeansBySite([Stratum(_arm(new, bounds), _arm(old, bounds)) for new, old in pairs], bounds)


def _of_cohorts(gate: GateSpec, new: Sequence[Value], old: Sequence[Value], bounds: Bounds) -> Comparison:
    if gate.kind == "quantile":
        return QuantilesOfCohorts(sides_of(_histogram(new), _histogram(old)), _quantile(gate))
    return MeansOfCohorts(_arm(new, bounds), _arm(old, bounds), bounds)


def _alone(gate: GateSpec, new: Sequence[Value], bounds: Bounds) -> Comparison:
    if gate.kind == "quantile":
        return QuantileAlone(_histogram(new), _quantile(gate))
    return MeanAlone(_arm(new, bounds), bounds)
