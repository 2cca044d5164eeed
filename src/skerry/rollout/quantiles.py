"""Quantiles from histograms, as counts of samples above a threshold: evidence about latencies that is always valid.

That the q-quantile of the new release is at most b says that a share of at most 1 - q of its samples exceeds b, which
is a claim about a rate (the reduction behind Howard and Ramdas 2022, "Sequential estimation of quantiles with
applications to A/B testing and best-arm identification"). A bucket that a threshold cuts counts on the side that
weakens the evidence, so the width of buckets costs time and never validity.

- Beside a bound: exact.
- Beside a cohort: for each threshold t that may be the old quantile, the evidence against "old's quantile is t" times
  that against "new's is at most slope x t + offset"; the least product over all t holds for the true one. Exact.
- At the same site: the threshold of a stratum is where the share 1 - q of both releases together lies above it, new
  samples being brought to the old one's measure first; then new must not exceed it more often than old (Mood's
  median test, stratified). Given both together, how the excess falls to new and old is hypergeometric where the
  releases are alike, and smaller in convex order than what `sequences` assumes: exact at each look; over repeated
  looks covered up to the normal approximation, because the threshold moves a little as samples arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from skerry.rollout.comparing import common_weight
from skerry.rollout.sequences import Arm, Stratum, log_e_above, log_e_below, log_e_share
from skerry.spec.metrics import Histogram, at_scale

_NEARLY = 1e-9
"""Thresholds this near an edge, in buckets, are the edge: what is left of rounding."""


class Tails:
    """How many samples of a histogram lie above a threshold."""

    def __init__(self, histogram: Histogram) -> None:
        self.scale, self.total = histogram.scale, histogram.total
        self.first = histogram.offset
        self.edges = len(histogram.counts)
        self._above = (*accumulate(reversed(histogram.counts), initial=0),)[::-1]

    def above(self, edge: int) -> int:
        """Return how many are in buckets from this one on."""
        return self._above[min(max(edge - self.first, 0), self.edges)]

    def surely(self, threshold: float) -> int:
        """Return how many exceed the threshold wherever they lie in their buckets."""
        if math.isinf(threshold):
            return 0
        return self.above(math.ceil(self._place(threshold) - _NEARLY)) if threshold > 0 else self._above[0]

    def possibly(self, threshold: float) -> int:
        """Return how many exceed the threshold at most."""
        if math.isinf(threshold):
            return 0
        return self.above(math.floor(self._place(threshold) + _NEARLY)) if threshold > 0 else self.total

    def edge(self, place: int) -> float:
        """Return the lower edge of a bucket."""
        return math.exp2(min(max(place * 2.0**-self.scale, -900.0), 900.0))

    def quantile(self, quantile: float) -> float:
        """Return the middle of the bucket in which the quantile lies, 0 where it lies among the zeros."""
        wanted = (1 - quantile) * self.total
        for place in range(self.first + self.edges - 1, self.first - 1, -1):
            if self.above(place) > wanted:
                return math.sqrt(self.edge(place)) * math.sqrt(self.edge(place + 1))
        return 0.0

    def _place(self, threshold: float) -> float:
        return math.log2(threshold) * 2.0**self.scale


class Sides(NamedTuple):
    """Histograms of one stratum at one scale."""

    new: Tails
    old: Tails


def sides_of(new: Histogram, old: Histogram) -> Sides:
    """Return both at the coarser one's scale."""
    scale = min(new.scale, old.scale)
    return Sides(Tails(at_scale(new, scale)), Tails(at_scale(old, scale)))


class QuantilesBySite:
    """Quantiles side by side in each stratum."""

    def __init__(self, sides: Sequence[Sides], quantile: float) -> None:
        self._sides, self._share = tuple(sides), 1 - quantile
        weights = [common_weight(new.total, old.total) for new, old in sides]
        whole = math.fsum(weights) or 1.0
        pairs = list(zip(sides, weights, strict=True))
        self.new = math.fsum(w * side.new.quantile(quantile) for side, w in pairs) / whole
        self.old: float | None = math.fsum(w * side.old.quantile(quantile) for side, w in pairs) / whole

    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= slope x old + offset`, of this quantile."""
        strata = [self._split(side, slope, offset, sure=True) for side in self._sides]
        return log_e_above(strata, slope=1, offset=0)

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= slope x old + offset`, of this quantile."""
        strata = [self._split(side, slope, offset, sure=False) for side in self._sides]
        return log_e_below(strata, slope=1, offset=0)

    def _split(self, side: Sides, slope: float, offset: float, *, sure: bool) -> Stratum:
        """Return how often new and old exceed the threshold that leaves the wanted share of both above it."""
        new, old = side
        count = new.surely if sure else new.possibly
        wanted = self._share * (new.total + old.total)
        # No claim brings the two together from farther apart than a factor of 2^64.
        reach = math.ceil(64 * 2.0**new.scale)
        low = min(new.first, old.first) - reach
        high = max(new.first + new.edges, old.first + old.edges) + reach
        while high - low > 1:
            middle = (low + high) // 2
            if old.above(middle) + count(slope * old.edge(middle) + offset) > wanted:
                low = middle
            else:
                high = middle
        excess, fewer = ((count(slope * old.edge(place) + offset), old.above(place)) for place in (low, high))
        n, m = excess if abs(sum(excess) - wanted) <= abs(sum(fewer) - wanted) else fewer
        return Stratum(Arm(new.total, n, n), Arm(old.total, m, m))


class QuantilesOfCohorts:
    """All of the new release beside all of the old one's cohort."""

    def __init__(self, sides: Sides, quantile: float) -> None:
        self._new, self._old = sides
        self._share = 1 - quantile
        self._known: dict[tuple[int, float], float] = {}
        self.new = self._new.quantile(quantile)
        self.old: float | None = self._old.quantile(quantile)
        last = self._old.first + self._old.edges
        self._high = {
            place: log_e_share(self._old.above(place), self._old.total, at_most=self._share)
            for place in range(self._old.first, last + 1)
        }
        self._low = {
            place: log_e_share(
                self._old.total - self._old.above(place), self._old.total, at_most=1 - self._share
            )
            for place in range(self._old.first, last + 1)
        }

    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= slope x old + offset`, of this quantile."""
        # The old quantile is in (edge, next edge] or, before the first edge, anywhere down to 0.
        none = log_e_share(0, self._old.total, at_most=1 - self._share)
        found = [none + self._rise(slope * self._old.edge(self._old.first) + offset)]
        for place, old in self._low.items():
            last = place == self._old.first + self._old.edges
            reach = math.inf if last else slope * self._old.edge(place + 1) + offset
            found.append(old + self._rise(reach))
        return min(found)

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= slope x old + offset`, of this quantile."""
        # Above the last edge there is nothing: no old sample says that the quantile is not there.
        nothing = log_e_share(0, self._old.total, at_most=self._share)
        found = [self._high[self._old.first] + self._fall(offset)]
        for place in self._high:
            old = self._high.get(place + 1, nothing)
            found.append(old + self._fall(slope * self._old.edge(place) + offset))
        return min(found)

    def _rise(self, threshold: float) -> float:
        bad = self._new.surely(threshold) if math.isfinite(threshold) else 0
        return self._new_evidence(bad, self._share)

    def _fall(self, threshold: float) -> float:
        good = self._new.total - self._new.possibly(threshold)
        return self._new_evidence(good, 1 - self._share)

    def _new_evidence(self, count: int, share: float) -> float:
        # Hundreds of thresholds, for each claim of a search, leave the same few counts above them.
        key = (count, share)
        if key not in self._known:
            self._known[key] = log_e_share(count, self._new.total, at_most=share)
        return self._known[key]


class QuantileAlone:
    """The new release beside a number: only claims with slope 0 mean anything."""

    def __init__(self, new: Histogram, quantile: float) -> None:
        self._new, self._share = Tails(new), 1 - quantile
        self.new = self._new.quantile(quantile)
        self.old: float | None = None

    def above(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new <= offset`, of this quantile."""
        return log_e_share(self._new.surely(offset), self._new.total, at_most=self._share)

    def below(self, slope: float, offset: float) -> float:
        """Return the log e-value against `new >= offset`, of this quantile."""
        good = self._new.total - self._new.possibly(offset)
        return log_e_share(good, self._new.total, at_most=1 - self._share)
