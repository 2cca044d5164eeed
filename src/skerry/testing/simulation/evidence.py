"""What hosts of a simulation measure, and what the real gates say of it.

Each look takes new samples at up to so many sites that run the new release and as many that run the old one, and adds
them to what was measured before; the old release's sites are the cohort.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from random import Random

import msgspec

from skerry.rollout.facts import Verdict
from skerry.rollout.gates import Exhibit, judge_gates
from skerry.rollout.samples import Measured
from skerry.spec.gates import GateSpec
from skerry.spec.metrics import (
    Histogram,
    Mean,
    Rate,
    Value,
    histogram_of,
    mean_of,
    merge_histograms,
    merge_means,
    merge_rates,
)
from skerry.testing.simulation.documents import SimulatedMetric

LOOK_S = 600.0
SITES = 40
UNMEASURED = Verdict("inconclusive", "nothing measured yet")
SPREAD = 0.3
"""Of a logarithm: most samples of a quantile's metric lie within a third of the median."""

Source = tuple[str, str]
"""A site that measures, and its hardware."""


class Evidence:
    """The samples of all waves."""

    def __init__(
        self, gates: Sequence[GateSpec], metrics: Sequence[SimulatedMetric], seed: int, starts_at: datetime
    ) -> None:
        self._gates = gates
        self._metrics = {metric.name: metric for metric in metrics}
        self._rng = Random(f"{seed}/evidence")
        self._starts_at = starts_at
        self._known: dict[tuple[int, str, bool], Value] = {}

    def look(self, wave: int, new: Iterable[Source], old: Iterable[Source], at: datetime) -> Verdict:
        """Take samples of what the last interval brought, and return what the gates say of a wave."""
        for is_new, sources in ((True, list(new)[:SITES]), (False, list(old)[:SITES])):
            for name in sorted({gate.metric for gate in self._gates}):
                metric = self._metrics[name]
                values = [self._measure(metric, hardware, is_new) for _, hardware in sources]
                key = _key(wave, name, is_new)
                if values:
                    known = self._known.get(key)
                    self._known[key] = _merged([known, *values] if known is not None else values)
        verdict = judge_gates([self._exhibit(gate, wave, at) for gate in self._gates])
        outcome = "inconclusive" if verdict.outcome == "no_data" else verdict.outcome
        return Verdict(outcome, verdict.why)

    def _exhibit(self, gate: GateSpec, wave: int, at: datetime) -> Exhibit:
        new, old = (self._known.get(_key(wave, gate.metric, is_new)) for is_new in (True, False))
        end = max(at, self._starts_at + timedelta(seconds=1))
        return Exhibit(
            gate,
            (Measured("with the new release", self._starts_at, end, new),) if new is not None else (),
            (Measured("with the old release", self._starts_at, end, old),) if old is not None else (),
        )

    def _measure(self, metric: SimulatedMetric, hardware: str, is_new: bool) -> Value:  # noqa: FBT001
        changed = is_new and metric.becomes is not None and metric.hardware in ("", hardware)
        typical = metric.becomes if changed and metric.becomes is not None else metric.typical
        rng, count = self._rng, max(1, round(metric.per_hour * LOOK_S / 3600))
        match metric.kind:
            case "rate":
                return Rate(bad=sum(rng.random() < typical for _ in range(count)), total=count)
            case "mean":
                spread = 0.1 * (metric.high - metric.low)
                samples = [rng.gauss(typical, spread) for _ in range(count)]
                return mean_of(samples, low=metric.low, high=metric.high)
            case "quantile":
                return histogram_of(rng.lognormvariate(math.log(typical), SPREAD) for _ in range(count))


def _key(wave: int, metric: str, is_new: bool) -> tuple[int, str, bool]:  # noqa: FBT001
    """The old release is the same whichever wave is judged: all that was measured of it counts."""
    return wave if is_new else -1, metric, is_new


def _merged(values: Sequence[Value]) -> Value:
    for kind, merge in _MERGES:
        same = [value for value in values if isinstance(value, kind)]
        if len(same) == len(values):
            return merge(same)
    raise ValueError("values of one metric are of one kind")


_MERGES: tuple[tuple[type[msgspec.Struct], Callable[..., Value]], ...] = (
    (Rate, merge_rates),
    (Mean, merge_means),
    (Histogram, merge_histograms),
)
