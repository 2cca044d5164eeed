"""Simulated rollouts under evidence gates, and under two rules in common use, looked at again and again.

Six sites with error rates, scores and latencies of their own, which change over the day for both releases alike. The
new release's share of the traffic grows from 10 % to 50 %, and all traffic grows as the rollout widens. Each window of
each release at each site is reported in two parts, each with a delay of its own: four in ten come up to nine looks
late, and in one of 20 site-windows both releases' parts come eight looks late, in a lump. There is a look after
each of 40 windows. A figure is the share of bad samples, the mean of `1 - score` or the p95 of a latency; the gate
allows no increase, so that without a change the release is exactly as bad as is still allowed.

The rules in common use wait for 100 samples as well. "Threshold": the last window's figure, all sites together, is
worse than the old release's so far by half (error rate) or a tenth. "t-test": one-sided at 5 %, computed anew at each
look, once stratified by site and window as the gate is, and once with all sites together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skerry.rollout.samples import SECOND_PART, Measured, sight
from skerry.spec.gates import GateSpec
from skerry.spec.metrics import Histogram, Mean, Quality, mean_of
from tests.bench.figure import Figure
from tests.bench.rollout_evidence import Floats, Sums, log_e

ROLLOUTS = 2000
CHUNK = 100
SITES, LOOKS, PARTS = 6, 40, 2
CONFIDENCE = 0.95
DEGRADATIONS = (0.0, 0.01, 0.05, 0.10)
QUANTILE = 0.95
MIN_SAMPLES = 100
ONE_SIDED = 1.6449
"""The quantile of the normal distribution: with 100 samples or more Student's t is hardly another."""
Ints = NDArray[np.int64]


class Metric(NamedTuple):
    """What is simulated: samples fall into categories, each worth so much badness; None means latency buckets."""

    name: str
    unit: str
    values: Floats | None
    chances: Callable[[Floats, float], Floats]
    threshold: float


class Course(NamedTuple):
    """The look at which each rule fails a rollout, LOOKS for never, and the new release's samples by each look."""

    ours: Ints
    window: Ints
    t_test: Ints
    pooled: Ints
    samples: Ints


RULES = ("threshold", "t-test", "t-test over all sites")


def figures() -> Iterator[Figure]:
    """Yield, for each metric, the false alarms without a change and the samples it takes to find a change."""
    for metric in METRICS:
        check_agreement(metric)
        for degradation in DEGRADATIONS:
            yield summarize(metric, degradation, simulate(metric, degradation, ROLLOUTS))


def summarize(metric: Metric, degradation: float, course: Course) -> Figure:
    """Return one figure of many rollouts."""
    rules = course[:-1]
    if degradation == 0:
        ours, *others = (float(np.mean(rule < LOOKS)) for rule in rules)
        peers = "; ".join(f"{name} {share:.3f}" for name, share in zip(RULES, others, strict=True))
        name = f"false_rollback_rate_no_change{metric.name}"
        return Figure(name, ours, "", f"goal 0.05; {LOOKS} looks; {peers}")
    found, *rest = (_detected(rule, course.samples) for rule in rules)
    peers = "; ".join(
        f"{name} {rule.median:,.0f} ({rule.share:.0%})" for name, rule in zip(RULES, rest, strict=True)
    )
    name = f"samples_to_detect_{100 * degradation:.0f}pct{metric.name}"
    often = f"found in {found.share:.1%}" + (
        " only: the figure is all there were" if found.share < 0.5 else ""
    )
    of = f"{metric.unit.format(100 * degradation)}; {often}"
    return Figure(name, found.median, "samples", f"{of}; {peers}")


class Detected(NamedTuple):
    """In what share of the rollouts a rule failed the release, and the median of samples until it did, over all."""

    median: float
    share: float


def _detected(rule: Ints, samples: Ints) -> Detected:
    found = rule < LOOKS
    taken = samples[np.arange(len(rule)), np.minimum(rule, LOOKS - 1)][found]
    return Detected(
        float(np.median(taken)) if found.any() else float(samples[:, -1].mean()), float(found.mean())
    )


def simulate(metric: Metric, degradation: float, rollouts: int) -> Course:
    """Return the courses of so many rollouts; the same ones every time."""
    parts = [
        _judge(metric, *simulate_arrivals(metric, degradation, min(CHUNK, rollouts - begin), begin))
        for begin in range(0, rollouts, CHUNK)
    ]
    return Course(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def simulate_arrivals(metric: Metric, degradation: float, rollouts: int, seed: int) -> tuple[Ints, Ints]:
    """Return counts by category, (2 releases, rollouts, sites, windows, parts, categories), and when each part came."""
    rng = np.random.default_rng([7, seed])
    shape = (rollouts, SITES, LOOKS, PARTS)
    window = np.arange(LOOKS)[None, None, :, None]
    day = 1 + 0.4 * np.sin(2 * np.pi * (window + rng.uniform(0, LOOKS, (rollouts, 1, 1, 1))) / LOOKS)
    site = rng.lognormal(0, 0.4, (rollouts, SITES, 1, 1))
    level = day * site
    traffic = rng.lognormal(3.6, 0.6, (rollouts, SITES, 1, 1)) * 1.12**window
    share = 0.1 + 0.4 * window / LOOKS
    counts: list[Ints] = []
    for weight, change in ((share, degradation), (1 - share, 0.0)):
        samples = rng.poisson(np.broadcast_to(traffic * weight, shape))
        counts.append(rng.multinomial(samples, metric.chances(level, change)))
    delay = np.where(rng.random((2, *shape)) < 0.6, 0, rng.integers(1, 10, (2, *shape)))
    lump = rng.random((rollouts, SITES, LOOKS, 1)) < 0.05
    return np.stack(counts), window + np.where(lump, 8, delay)


def _judge(metric: Metric, counts: Ints, arrival: Ints) -> Course:
    strata = Strata(metric, counts, arrival)
    ours = _first(log_e(*strata.sums, strata.gather) >= -np.log((1 - CONFIDENCE) * (1 - SECOND_PART)))
    received = _received(counts, arrival)
    samples = received[0].sum(axis=-1).cumsum(axis=1)
    window, pooled = _common_rules(metric, received)
    t_test = _first((strata.score() > ONE_SIDED) & (samples >= MIN_SAMPLES))
    return Course(ours, window, t_test, pooled, samples)


class Strata:
    """Sites and windows as they were known after each of their parts came: the difference counts from that look on."""

    def __init__(self, metric: Metric, counts: Ints, arrival: Ints) -> None:
        order: Ints = np.sort(np.moveaxis(arrival, 0, -1).reshape(*arrival.shape[1:4], -1), axis=-1)
        known = [
            np.where(arrival[arm][..., None, :] <= order[..., :, None], 1, 0) @ counts[arm] for arm in (0, 1)
        ]
        self.sums = metric_sums(metric, known[0], known[1])
        self._rollouts = counts.shape[1]
        first: Ints = (LOOKS + 1) * np.arange(self._rollouts, dtype=np.int64)
        slot: Ints = np.minimum(order, LOOKS) + first[:, None, None, None]
        self._slot: Ints = slot.ravel()

    def gather(self, values: Floats) -> Floats:
        """Return the sums over strata at each look, (rollouts, looks)."""
        steps = np.diff(values, axis=-1, prepend=0.0)
        sums = np.bincount(self._slot, steps.ravel(), self._rollouts * (LOOKS + 1))
        return np.asarray(sums.reshape(self._rollouts, LOOKS + 1)[:, :LOOKS].cumsum(axis=1), dtype=np.float64)

    def score(self) -> Floats:
        """Return the stratified test's score at each look (Mantel and Haenszel)."""
        new, old = self.sums
        both = (new.samples > 0) & (old.samples > 0)
        whole = np.maximum(new.samples + old.samples, 2)
        mean = (new.total + old.total) / whole
        variance = ((new.squares + old.squares) / whole - mean**2) * whole / (whole - 1)
        share = np.where(both, old.samples / whole, 0.0)
        excess = self.gather(share * new.total - np.where(both, new.samples / whole, 0.0) * old.total)
        spread = self.gather(share * new.samples * variance)
        return excess / np.sqrt(np.maximum(spread, 1e-12))


def check_agreement(metric: Metric) -> None:
    """Hold what arrays say against the product's own answer, on a few states of a rollout.

    Raises:
        SystemExit: they differ, so no figure would be worth anything.
    """
    counts, arrival = simulate_arrivals(metric, 0.05, 2, 99)
    strata = Strata(metric, counts, arrival)
    found = log_e(*strata.sums, strata.gather)
    for rollout, look in ((0, 4), (0, 25), (1, 39)):
        new, old = (
            [
                _measured(metric, site, window, counts[arm, rollout, site, window, part])
                for site in range(SITES)
                for window in range(LOOKS)
                for part in range(PARTS)
                if arrival[arm, rollout, site, window, part] <= look
            ]
            for arm in (0, 1)
        )
        kind: Quality = "quantile" if metric.values is None else "mean"
        gate = GateSpec(
            metric="figure", kind=kind, quantile=QUANTILE if kind == "quantile" else None, max_increase="0"
        )
        comparison = sight(gate, new, old, None).comparison
        own = comparison.above(1.0, 0.0) if comparison else 0.0
        if abs(own - found[rollout, look]) > 1e-6 * max(abs(own), 1):
            raise SystemExit(f"bench: the product says {own}, the benchmark {found[rollout, look]}")


def _measured(metric: Metric, site: int, window: int, counts: Ints) -> Measured:
    begin = datetime(2026, 1, 1, tzinfo=UTC) + window * timedelta(minutes=5)
    value: Mean | Histogram
    if metric.values is None:
        buckets = tuple(int(count) for count in counts[1:])
        value = Histogram(scale=4, offset=0, counts=buckets, zeros=int(counts[0]))
    else:
        value = mean_of(np.repeat(metric.values, counts), low=0, high=1)
    return Measured(f"site-{site}", begin, begin + timedelta(minutes=5), value)


def metric_sums(metric: Metric, new: Ints, old: Ints) -> tuple[Sums, Sums]:
    """Return badness of counts by category; of latencies, what exceeds the quantile of both together."""
    if metric.values is not None:
        values = metric.values
        first, second = (Sums(arm.sum(axis=-1) * 1.0, arm @ values, arm @ values**2) for arm in (new, old))
        return first, second
    excess: list[Ints] = [np.cumsum(arm[..., ::-1], axis=-1)[..., ::-1] for arm in (new, old)]
    both: Ints = excess[0] + excess[1]
    wanted = (1 - QUANTILE) * both[..., :1]
    high: Ints = np.clip((both > wanted).sum(axis=-1, keepdims=True), 1, both.shape[-1] - 1)
    low: Ints = high - 1
    over, under = (np.take_along_axis(both, place, -1) for place in (low, high))
    place: Ints = np.where(np.abs(over - wanted) <= np.abs(under - wanted), low, high)
    sums: list[Sums] = []
    for arm in excess:
        bad = np.take_along_axis(arm, place, -1)[..., 0].astype(float)
        sums.append(Sums(arm[..., 0].astype(float), bad, bad))
    return sums[0], sums[1]


def _received(counts: Ints, arrival: Ints) -> Ints:
    """Return what came for each look, all sites together, (2 releases, rollouts, looks, categories)."""
    rollouts, categories = counts.shape[1], counts.shape[-1]
    received = np.zeros((2, rollouts, LOOKS + 1, categories), dtype=np.int64)
    for arm in (0, 1):
        for rollout in range(rollouts):
            np.add.at(
                received[arm, rollout],
                np.minimum(arrival[arm, rollout], LOOKS).ravel(),
                counts[arm, rollout].reshape(-1, categories),
            )
    return received[:, :, :LOOKS]


def _common_rules(metric: Metric, received: Ints) -> tuple[Ints, Ints]:
    """Return the looks at which the two rules in common use fail the release."""
    so_far = received.cumsum(axis=2)
    new, old = metric_sums(metric, so_far[0], so_far[1])
    means: list[Floats] = []
    variances: list[Floats] = []
    for arm in (new, old):
        count = np.maximum(arm.samples, 1)
        means.append(arm.total / count)
        variances.append((arm.squares / count - (arm.total / count) ** 2) / count)
    with np.errstate(invalid="ignore", divide="ignore"):
        score: Floats = (means[0] - means[1]) / np.sqrt(variances[0] + variances[1])
    last: Floats
    known: Floats
    if metric.values is None:
        last, known = _quantile(received[0]), _quantile(so_far[1])
    else:
        count = np.maximum(received[0].sum(axis=-1), 1)
        last, known = received[0] @ metric.values / count, means[1]
    enough = received[0].sum(axis=-1) >= MIN_SAMPLES
    window = _first((last > known * metric.threshold) & enough)
    return window, _first((score > ONE_SIDED) & (new.samples >= MIN_SAMPLES))


def _quantile(counts: Ints) -> Floats:
    above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    place = (above > (1 - QUANTILE) * above[..., :1]).sum(axis=-1)
    found: Floats = np.exp2(np.maximum(place, 1) * WIDTH)
    return found


def _first(failed: NDArray[np.bool_]) -> Ints:
    return np.where(failed.any(axis=1), failed.argmax(axis=1), LOOKS).astype(np.int64)


def _errors(level: Floats, change: float) -> Floats:
    bad = np.clip(0.02 * level + change, 0, 1)
    return np.stack([1 - bad, bad], axis=-1)


def _scores(level: Floats, change: float) -> Floats:
    # A mixture of good and bad answers, whose mean badness is as wanted.
    bad = np.clip(0.2 * np.clip(level, 0.5, 2.0) + change, 0, 1)[..., None]
    good_ones, bad_ones = np.array([0.7, 0.2, 0.1, 0, 0]), np.array([0, 0, 0.1, 0.2, 0.7])
    low, high = good_ones @ SCORES, bad_ones @ SCORES
    part = np.clip((bad - low) / (high - low), 0, 1)
    chances: Floats = (1 - part) * good_ones + part * bad_ones
    return chances


def _latencies(level: Floats, change: float) -> Floats:
    # Lognormal; `level` moves the median. Buckets of scale 6, from the median up to eight times that.
    upper = np.arange(BUCKETS) * WIDTH * np.log(2)
    centred = (upper - np.log(level[..., None] * (1 + change)) * 0.5 - 0.5 * np.log1p(change)) / 0.5
    below = _normal_share(centred)
    return np.diff(below, axis=-1, prepend=0.0, append=1.0)


def _normal_share(score: Floats) -> Floats:
    """Return the standard normal distribution function, within 2e-4: of no consequence, being the same for both."""
    return 1 / (1 + np.exp(-1.5976 * score - 0.07056 * score**3))


BUCKETS = 32
WIDTH = 1 / 16
SCORES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
METRICS = (
    Metric("", "error rate of 2 % and {:g} percentage points", np.array([0.0, 1.0]), _errors, 1.5),
    Metric("_score", "score of 0.8 less {:g} hundredths", SCORES, _scores, 1.1),
    Metric("_latency_p95", "p95 longer by {:g} %", None, _latencies, 1.1),
)
