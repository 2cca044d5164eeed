"""The new release beside what it is compared with: evidence in a metric's own unit, for each way to compare.

A `Comparison` answers for any claim `new <= slope x old + offset`, or `new >= ...`, how much evidence there is against
it; with slope 0 the old release plays no part. How quantiles become counts is in `quantiles`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from skerry.rollout.sequences import (
    NOTHING,
    Arm,
    Cohorts,
    Evidence,
    Stratum,
    evidence_above,
)
from skerry.spec.metrics import MEAN_STEPS, Mean, Rate


class Comparison(Protocol):
    """Evidence, in nats, and what was measured. `old` is None where there is only a bound."""

    @property
    def new(self) -> float: ...  # noqa: D102 - as measured
    @property
    def old(self) -> float | None: ...  # noqa: D102 - as measured
    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= slope x old + offset`."""
        ...

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= slope x old + offset`."""
        ...


class Bounds(NamedTuple):
    """What lies between `low` and `high`, as shares of the distance."""

    low: float
    high: float

    def arm(self, value: Rate | Mean | None) -> Arm:
        """Return the sums of a rate or mean, as shares; its own bounds may be narrower."""
        match value:
            case Rate(bad=bad, total=total):
                return Arm(total, bad, bad)
            case Mean(count=count, low=low, high=high):
                # Exact where the bounds are its own: then `at` is 0 and `by` 1 over the steps.
                width = self.high - self.low
                at, by = (low - self.low) / width, (high - low) / width / MEAN_STEPS
                total, squares = value.total, value.squares
                return Arm(
                    count,
                    count * at + by * total,
                    count * at * at + 2 * at * by * total + by * by * squares,
                )
            case None:
                return NOTHING

    def value(self, share: float) -> float:
        """Return the number that a share stands for."""
        return self.low + share * (self.high - self.low)

    def offset(self, slope: float, offset: float) -> float:
        """Return the offset of a claim about shares that says the same as one about numbers."""
        return ((slope - 1) * self.low + offset) / (self.high - self.low)


class MeansBySite:
    """Rates or means side by side in each stratum, which `Stratum`s with no old samples say nothing of."""

    def __init__(self, strata: Sequence[Stratum], bounds: Bounds) -> None:
        self._strata, self._bounds = tuple(strata), bounds
        self._mirrored = tuple(stratum.mirrored() for stratum in strata)
        self._known: dict[tuple[bool, float], Evidence] = {}
        weights = [common_weight(s.new.samples, s.old.samples) for s in strata]
        self.new = bounds.value(_weighted([s.new for s in strata], weights))
        self.old: float | None = bounds.value(_weighted([s.old for s in strata], weights))

    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= slope x old + offset`."""
        return self._evidence(True, slope).at(self._bounds.offset(slope, offset))

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= slope x old + offset`."""
        return self._evidence(False, slope).at(1 - slope - self._bounds.offset(slope, offset))

    def _evidence(self, above: bool, slope: float) -> Evidence:  # noqa: FBT001 - half of a key
        key = (above, slope)
        if key not in self._known:
            self._known[key] = evidence_above(self._strata if above else self._mirrored, slope=slope)
        return self._known[key]


class MeansOfCohorts:
    """All of the new release beside all of the old one's cohort."""

    def __init__(self, new: Arm, old: Arm, bounds: Bounds) -> None:
        self._cohorts, self._bounds = Cohorts(new, old), bounds
        self.new = bounds.value(new.total / new.samples)
        self.old: float | None = bounds.value(old.total / old.samples)

    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= slope x old + offset`."""
        return self._cohorts.log_e_above(slope=slope, offset=self._bounds.offset(slope, offset))

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= slope x old + offset`."""
        return self._cohorts.log_e_below(slope=slope, offset=self._bounds.offset(slope, offset))


class MeanAlone:
    """The new release beside a number: only claims with slope 0 mean anything."""

    def __init__(self, new: Arm, bounds: Bounds) -> None:
        self._rise = evidence_above([Stratum(new, NOTHING)], slope=0)
        self._fall = evidence_above([Stratum(new.mirrored(), NOTHING)], slope=0)
        self._bounds = bounds
        self.new = bounds.value(new.total / new.samples)
        self.old: float | None = None

    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= offset`."""
        return self._rise.at(self._bounds.offset(slope, offset))

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= offset`."""
        return self._fall.at(1 - self._bounds.offset(slope, offset))


def common_weight(new: float, old: float) -> float:
    """Return what a stratum weighs in a common difference (Mantel and Haenszel 1959): nm / (n + m)."""
    return new * old / (new + old) if new and old else 0.0


def _weighted(arms: Sequence[Arm], weights: Sequence[float]) -> float:
    sums = [weight * arm.total / arm.samples for arm, weight in zip(arms, weights, strict=True) if weight]
    whole = math.fsum(weights)
    return math.fsum(sums) / whole if whole else 0.0
