"""Verdicts of evidence gates: pass, fail, inconclusive, or no data, each with its why in one sentence.

Rules: a gate fails when the evidence excludes that the release is no worse than allowed, and passes when it excludes
that it is worse, on enough samples; otherwise it is inconclusive. Each of the two errors has a probability of at most
1 - confidence over the whole life of the rollout, however often one looks (`sequences`). A verdict follows from the
samples alone: the same samples in any order, from however many reports, give the same verdict, and nothing of an
earlier verdict is kept, so late samples may change it.

The probability of a false failure is shared out equally among the gates judged together, the `among` places that judge
for themselves, and a gate's two limits; and four to one between comparing at the same site and what stands in for that
(`samples`). Passing needs all limits of all gates at once, so it is not shared out among those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from skerry.rollout.comparing import Comparison
from skerry.rollout.samples import Measured, Sighting, sight
from skerry.rollout.sequences import farthest_rejected
from skerry.spec.gates import GateSpec, Limit, limits_of

Outcome = Literal["pass", "fail", "inconclusive", "no_data"]
ChangeOf = Literal["share", "difference", "value"]


class Change(msgspec.Struct, frozen=True):
    """By how much the new release differs: between `low` and `high`, None where nothing is proven on that side.

    `of`: `share` of the old release's figure (0.1 is 10 % more), `difference` to it, or the new one's own `value`. Each
    end is exceeded with a probability of at most 1 - confidence, however often one looks.
    """

    of: ChangeOf
    low: float | None
    high: float | None


class GateVerdict(msgspec.Struct, frozen=True):
    """What a gate says, why, the change that was measured, and on how many samples of the new release."""

    outcome: Outcome
    why: str
    samples: int = 0
    interval: Change | None = None


class Exhibit(msgspec.Struct, frozen=True):
    """A gate, and what was measured of the new and of the old release. `bound` replaces the gate's own."""

    gate: GateSpec
    new: tuple[Measured, ...]
    old: tuple[Measured, ...] = ()
    bound: float | None = None


class GatesVerdict(msgspec.Struct, frozen=True):
    """What all gates say together, and each of them."""

    outcome: Outcome
    why: str
    verdicts: tuple[GateVerdict, ...] = ()


def judge_gates(exhibits: Sequence[Exhibit], *, among: int = 1) -> GatesVerdict:
    """Return one verdict on all gates: one that fails fails them all, and all must pass.

    That any gate fails a release which is no worse has a probability of at most the largest 1 - confidence among them.
    """
    if not exhibits:
        return GatesVerdict("pass", "there are no gates")
    verdicts = tuple(
        judge_gate(one.gate, one.new, one.old, bound=one.bound, among=among * len(exhibits))
        for one in exhibits
    )
    for outcome in ("fail", "inconclusive", "no_data"):
        telling = [verdict.why for verdict in verdicts if verdict.outcome == outcome]
        if telling:
            return GatesVerdict(outcome, "; ".join(telling), verdicts)
    return GatesVerdict("pass", "; ".join(verdict.why for verdict in verdicts), verdicts)


def judge_gate(
    gate: GateSpec,
    new: Sequence[Measured],
    old: Sequence[Measured],
    *,
    bound: float | None = None,
    among: int = 1,
) -> GateVerdict:
    """Return a gate's verdict on what was measured of the new and of the old release.

    `bound` replaces the gate's own, such as a figure known from before. `among` is how many such verdicts, this one
    included, may each fail the rollout: gates, or sites that judge for themselves.
    """
    sighting = sight(gate, new, old, gate.bound if bound is None else bound)
    if sighting.comparison is None:
        return _without_comparison(gate, sighting)
    # A gate that was never checked is judged all the same.
    alpha = min(max(1 - gate.confidence, 1e-9), 1.0) * sighting.part
    limits = limits_of(gate)
    sure = math.log(max(among, 1) * max(len(limits), 1) / alpha)
    broken = [limit for limit in limits if _evidence(sighting, limit, against=False) >= sure]
    kept = [limit for limit in limits if _evidence(sighting, limit, against=True) >= math.log(1 / alpha)]
    interval = _interval(sighting, limits, -math.log(alpha))
    told = _told(gate, sighting, interval)
    sureness = f"{100 * gate.confidence:g} % confidence"
    if broken:
        return GateVerdict("fail", f"{told}: worse than allowed, with {sureness}", sighting.samples, interval)
    if sighting.samples < gate.min_samples:
        why = f"{told}: {sighting.samples:,} of at least {gate.min_samples:,} samples"
        return GateVerdict("inconclusive", why, sighting.samples, interval)
    if limits and len(kept) == len(limits):
        why = f"{told}: not worse than allowed, with {sureness}"
        return GateVerdict("pass", why, sighting.samples, interval)
    why = f"{told}: neither proven worse than allowed nor proven not to be, with {sureness}"
    return GateVerdict("inconclusive", why, sighting.samples, interval)


def _without_comparison(gate: GateSpec, sighting: Sighting) -> GateVerdict:
    told = f"{name_of(gate)}: {sighting.why}"
    if sighting.unfit:
        return GateVerdict("inconclusive", told, sighting.samples)
    match gate.no_data:
        case "pass":
            return GateVerdict("pass", f"{told}, which passes (no_data: pass)", sighting.samples)
        case "fail":
            return GateVerdict("fail", f"{told}, which fails (no_data: fail)", sighting.samples)
        case "wait":
            return GateVerdict("no_data", told, sighting.samples)


def _evidence(sighting: Sighting, limit: Limit, *, against: bool) -> float:
    """Return the evidence that the limit is broken, or, `against` that, that it is kept."""
    comparison = sighting.comparison
    assert comparison is not None
    slope, offset = limit.slope, limit.offset
    if sighting.bound is not None:
        slope, offset = 0.0, limit.of(sighting.bound)
    rises = limit.above is not against
    return comparison.above(slope, offset) if rises else comparison.below(slope, offset)


def _interval(sighting: Sighting, limits: Sequence[Limit], target: float) -> Change:
    comparison = sighting.comparison
    assert comparison is not None
    new, old = comparison.new, comparison.old
    if sighting.bound is not None or old is None:
        return _change("value", comparison, start=new, step=0.02 * abs(new) or 1e-3, target=target)
    if limits and limits[0].relative:
        return _change("share", comparison, start=new / old - 1 if old > 0 else 0.0, step=0.05, target=target)
    return _change("difference", comparison, start=new - old, step=0.02 * abs(old) or 1e-3, target=target)


def _change(of: ChangeOf, comparison: Comparison, *, start: float, step: float, target: float) -> Change:
    def claim(value: float) -> tuple[float, float]:
        match of:
            case "share":
                return max(1 + value, 0.0), 0.0
            case "difference":
                return 1.0, value
            case "value":
                return 0.0, value

    low = farthest_rejected(lambda v: comparison.above(*claim(v)), start=start, step=-step, target=target)
    high = farthest_rejected(lambda v: comparison.below(*claim(v)), start=start, step=step, target=target)
    return Change(of, low, high)


def name_of(gate: GateSpec) -> str:
    """Return what a gate judges, for people, such as `latency_s p95`."""
    component = f"{gate.component} " if gate.component else ""
    quantile = f" p{100 * gate.quantile:g}" if gate.quantile is not None else ""
    return f"{component}{gate.metric}{quantile}"


def _told(gate: GateSpec, sighting: Sighting, change: Change) -> str:
    comparison = sighting.comparison
    assert comparison is not None
    shown: Callable[[float], str] = _percent if gate.kind == "rate" else _number
    beside = f" beside {shown(comparison.old)}" if comparison.old is not None else ""
    ends = _percent if change.of == "share" else shown
    low = f"at least {ends(change.low)}" if change.low is not None else ""
    high = f"at most {ends(change.high)}" if change.high is not None else ""
    proven = " and ".join(part for part in (low, high) if part) or "not known yet"
    allowed = " and ".join(
        f"{'+' if limit.above else '-'}{text}"
        for limit, text in zip(
            limits_of(gate), filter(None, (gate.max_increase, gate.max_decrease)), strict=True
        )
    )
    reference = f"{shown(sighting.bound)} " if sighting.bound is not None else ""
    word = {"share": "change", "difference": "difference", "value": "true value"}[change.of]
    return (
        f"{name_of(gate)}: {shown(comparison.new)}{beside} ({sighting.how}, {sighting.samples:,} samples), "
        f"{word} {proven}, allowed {reference}{allowed}"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _number(value: float) -> str:
    return f"{value:.4g}"
