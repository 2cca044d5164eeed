"""Evidence that stays valid however often it is looked at: e-processes and confidence bounds from sums alone.

An e-process against a claim is a number that, while the claim holds, exceeds 1/alpha at any time ever with probability
at most alpha (Ville's inequality; Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric,
nonasymptotic confidence sequences"). Here it is its logarithm, in nats. Everything is computed from counts, sums
and sums of squares, hence in no order, and sums over strata are exactly rounded, hence the same in any.

Samples lie in [0, 1] (a rate: 0 or 1). The claim is about conditional means: in every stratum (a site and a window)
`mean(new) <= slope x mean(old) + offset`; nothing is assumed of the distribution, nor that strata resemble each other.
Each stratum's own mean cancels: new and old weigh in as the stratum's own numbers of samples demand, so a site that
is worse under either release shifts nothing (Simpson's paradox). Three families of evidence are averaged, each a
mixture over a fixed grid, because an average of e-processes is one:

- split: with a, b such that n slope (a - 1) + m (b - 1) = 0, `a^S b^R exp(-n offset (a - 1))` for sums S of n new
  and R of m old samples: E[a^x] <= 1 + mean (a - 1) <= exp(mean (a - 1)) for x in [0, 1]. Sharp where events are rare.
- split of 1 - x: the same for what is nearly always 1.
- Bernstein: `exp(l (x - mean) - psi(l) (x - c)^2)` with psi(l) = -log(1 - l) - l for any fixed centre c (Fan, Grama
  and Liu 2015; the empirical Bernstein bounds of Howard et al. 2021 and of Waudby-Smith and Ramdas 2024, "Estimating
  means of bounded random variables by betting"). Sharp where the spread is small.

Every factor of a stratum is a supermartingale while its n : m stays what it is, or when a stratum is counted once
it is complete. Where late samples change n : m of a stratum that was counted before, each single look is exact
still, and repeated looks are covered up to the normal approximation (increments stay uncorrelated).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

EFFECTS = tuple(2.0**power for power in range(-7, 7))
"""Relative differences that `split` looks for: 0.8 % to a factor of 65."""
STEPS = tuple(0.9 * 0.5**power for power in range(12))
"""The l of `Bernstein`."""
CENTRES = tuple(place / 16 for place in range(17))
SPLIT, MIRRORED, BERNSTEIN, IDLE = 0.4, 0.2, 0.35, 0.05
"""The families' weights; the last is the constant 1, so that no evidence falls below 5 %."""
FLOOR = math.log(IDLE)


class Arm(NamedTuple):
    """Samples in [0, 1]: how many, their sum and the sum of their squares."""

    samples: float
    total: float
    squares: float

    def mirrored(self) -> Arm:
        """Return the sums of 1 - x."""
        return Arm(self.samples, self.samples - self.total, self.samples - 2 * self.total + self.squares)


class Stratum(NamedTuple):
    """What the new and the old release did side by side."""

    new: Arm
    old: Arm

    def mirrored(self) -> Stratum:
        """Return both mirrored."""
        return Stratum(self.new.mirrored(), self.old.mirrored())


NOTHING = Arm(0, 0, 0)


class Evidence(NamedTuple):
    """Evidence for one slope as a function of the offset: log of a weighted sum of exp(height - offset x pull)."""

    terms: tuple[tuple[float, float], ...]

    def at(self, offset: float) -> float:
        """Return the log e-value against `mean(new) <= slope x mean(old) + offset`; it falls with the offset."""
        return log_sum([FLOOR, *(height - offset * pull for height, pull in self.terms)])


def evidence_above(strata: Sequence[Stratum], *, slope: float) -> Evidence:
    """Return the evidence that in some stratum new exceeds `slope` x old + offset; slope 0 leaves the old aside.

    `slope` >= 0. Strata without new samples, or without old ones where slope > 0, say nothing.
    """
    counted = [s for s in strata if s.new.samples > 0 and (s.old.samples > 0 or slope == 0)]
    mirrored = [stratum.mirrored() for stratum in counted]
    weight = math.log(SPLIT / len(EFFECTS))
    growing = _split(counted, slope, [1 + effect for effect in EFFECTS])
    terms = [(weight + height, pull) for height, pull in growing]
    # x_new <= s x_old + o says of 1 - x: new >= s old + (1 - s - o).
    shrinking = _split(mirrored, slope, [1 / (1 + effect) for effect in EFFECTS])
    weight = math.log(MIRRORED / len(EFFECTS))
    terms += [(weight + height - (1 - slope) * pull, -pull) for height, pull in shrinking]
    return Evidence((*terms, *_bernstein(counted, slope)))


def log_e_above(strata: Sequence[Stratum], *, slope: float, offset: float) -> float:
    """Return the log e-value against `mean(new) <= slope x mean(old) + offset` in every stratum."""
    return evidence_above(strata, slope=slope).at(offset)


def log_e_below(strata: Sequence[Stratum], *, slope: float, offset: float) -> float:
    """Return the log e-value against `mean(new) >= slope x mean(old) + offset` in every stratum."""
    mirrored = [stratum.mirrored() for stratum in strata]
    return log_e_above(mirrored, slope=slope, offset=1 - slope - offset)


class Cohorts:
    """Two samples of their own, in which neither sites nor windows correspond.

    The claim is `mean(new) <= slope x mean(old) + offset`. For each mean w that the old release may have there are
    two e-processes, against `new <= slope x w + offset` and against `old >= w`; their product is one as well (they
    grow by different samples), and its infimum over w holds for the true one, however the samples' numbers grow.
    It is bounded from below cell by cell, both factors being monotone in w.
    """

    def __init__(self, new: Arm, old: Arm) -> None:
        self._arms = new, old
        mirrored = new.mirrored(), old.mirrored()
        self._rise = [evidence_above([Stratum(arm, NOTHING)], slope=0) for arm in (new, old)]
        self._fall = [evidence_above([Stratum(arm, NOTHING)], slope=0) for arm in mirrored]

    def log_e_above(self, *, slope: float, offset: float) -> float:
        """Return the log e-value against `mean(new) <= slope x mean(old) + offset`."""
        return min(
            self._rise[0].at(slope * high + offset) + self._fall[1].at(1 - low)
            for low, high in self._cells(slope, offset)
        )

    def log_e_below(self, *, slope: float, offset: float) -> float:
        """Return the log e-value against `mean(new) >= slope x mean(old) + offset`."""
        return min(
            self._fall[0].at(1 - (slope * low + offset)) + self._rise[1].at(high)
            for low, high in self._cells(slope, offset)
        )

    def _cells(self, slope: float, offset: float) -> Iterable[tuple[float, float]]:
        """Yield cells that cover [0, 1], fine where the two samples contradict each other."""
        new, old = (arm.total / arm.samples if arm.samples else 0.5 for arm in self._arms)
        meeting = (new - offset) / slope if slope > 0 else old
        points = {old + (meeting - old) * place / 32 for place in range(-16, 49)}
        edges = sorted({0.0, 1.0} | {point for point in points if 0 < point < 1})
        return pairwise(edges)


def log_e_share(bad: int, total: int, *, at_most: float) -> float:
    """Return the log e-value against "each of these was bad with a probability of at most `at_most`" (in (0, 1)).

    A discrete mixture of likelihood ratios over fixed alternatives above `at_most` (Howard et al. 2021). It
    rises with `bad`, and falls with `total`, so bounds of the counts bound it.
    """
    terms = [FLOOR]
    odds = at_most / (1 - at_most)
    weight = math.log((1 - IDLE) / len(EFFECTS))
    for effect in EFFECTS:
        share = odds * (1 + effect) / (1 + odds * (1 + effect))
        hit, miss = math.log(share / at_most), math.log((1 - share) / (1 - at_most))
        terms.append(weight + bad * hit + (total - bad) * miss)
    return log_sum(terms)


def farthest_rejected(
    evidence: Callable[[float], float], *, start: float, step: float, target: float
) -> float | None:
    """Return the value nearest to `start` at which `evidence` was seen to reach `target`, going by `step`'s sign.

    `evidence` grows with the distance from `start`, about as a parabola that begins below 0: its root is what the
    search interpolates. The answer was seen to be rejected, so it is valid however near the search came.
    None when a million steps do not reach it.
    """
    wanted, sign = _root(target), math.copysign(1.0, step)
    near, near_root = 0.0, _root(0.0)
    far, far_root = math.inf, math.inf
    distance = abs(step)
    for _ in range(16):
        found = _root(evidence(start + sign * distance))
        if found >= wanted:
            far, far_root = distance, found
            if far - near <= 0.02 * far or found <= wanted * 1.01:
                break
        else:
            near, near_root = distance, found
        if math.isfinite(far):
            part = (wanted * 1.003 - near_root) / (far_root - near_root) if far_root > near_root else 0.5
            distance = near + (far - near) * min(max(part, 0.1), 0.9)
        else:
            distance *= min(max(wanted / max(found, 1e-9), 1.1), 8.0)
        if distance > abs(step) * 1e6:
            break
    return start + sign * far if math.isfinite(far) else None


def _root(evidence: float) -> float:
    return math.sqrt(max(evidence + 2.5, 0.0))


def log_sum(terms: Sequence[float]) -> float:
    """Return log(sum(exp(terms))) without overflow; exactly rounded inside, so that no order shows."""
    top = max(terms)
    if not math.isfinite(top):
        return top
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def _split(strata: Sequence[Stratum], slope: float, ratios: Sequence[float]) -> list[tuple[float, float]]:
    """Return height and pull of the family `split`, for each ratio of new to what is claimed."""
    terms: list[tuple[float, float]] = []
    for ratio in ratios:
        heights: list[float] = []
        pulls: list[float] = []
        for new, old in strata:
            claimed = new.samples * slope
            whole = claimed + old.samples
            # As the ratio tends to 1, so must both logarithms, without cancellation.
            b = -math.log1p(claimed * (ratio - 1) / whole) if whole else 0.0
            a = math.log(ratio) + b
            heights.append(new.total * a + old.total * b)
            pulls.append(new.samples * math.expm1(a))
        terms.append((math.fsum(heights), math.fsum(pulls)))
    return terms


def _bernstein(strata: Sequence[Stratum], slope: float) -> list[tuple[float, float]]:
    """Return height (with its weight) and pull of the family `Bernstein`, for each step and centre."""
    weight = math.log(BERNSTEIN / len(STEPS) / len(CENTRES))
    terms: list[tuple[float, float]] = []
    for step in STEPS:
        sums: list[list[float]] = [[], [], [], [], []]
        for new, old in strata:
            whole = new.samples * slope + old.samples
            up = step * old.samples / whole if slope > 0 else step
            down = step * new.samples * slope / whole if slope > 0 else 0.0
            rise, fall = psi(up), psi(down)
            sums[0].append(up * new.total - down * old.total)
            sums[1].append(up * new.samples)
            sums[2].append(rise * new.squares + fall * old.squares)
            sums[3].append(rise * new.total + fall * old.total)
            sums[4].append(rise * new.samples + fall * old.samples)
        lean, pull, squares, totals, counts = (math.fsum(column) for column in sums)
        for centre in CENTRES:
            spread = squares - 2 * centre * totals + centre * centre * counts
            terms.append((weight + lean - max(spread, 0.0), pull))
    return terms


def psi(step: float) -> float:
    """Return -log(1 - step) - step, for 0 <= step < 1, without cancellation at small steps."""
    if step < 1e-3:
        return step * step * (0.5 + step * (1 / 3 + step * 0.25))
    return -math.log1p(-step) - step
