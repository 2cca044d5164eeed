"""Evidence gates as a Rollout states them: which figure may become worse by how much, and how sure one must be.

A gate sets a limit above (`max_increase`), below (`max_decrease`) or both. A limit is absolute, in the metric's own
unit (`0.005`), or relative (`10%`) to what the new release is compared with:

- `site`: the old release at the same site over the same window; where no site runs both, its cohort or `bound`;
- `cohort`: all that was measured of the old release;
- `bound`: the number `bound`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from skerry.spec.metadata import Name, Part
from skerry.spec.metrics import Finite, MetricName, Quality
from skerry.spec.problems import Problem

Compare = Literal["site", "cohort", "bound"]
NoData = Literal["wait", "pass", "fail"]

LimitText = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?%?$",
        description="how much worse it may be: a number in the metric's unit such as 0.005, or a share such as 10%",
    ),
]
MIN_CONFIDENCE, MAX_CONFIDENCE = 0.5, 0.999999
MIN_QUANTILE, MAX_QUANTILE = 0.001, 0.9999
MAX_GATES = 32


class GateSpec(Part, frozen=True, kw_only=True):
    """One figure of the new release, and how much worse than the old one's it may be.

    `quantile` belongs to the kind `quantile`, such as 0.95. An empty `component` stands for all that report the
    metric. Below `min_samples` samples of the new release nothing passes; what is proven worse fails at once.
    `no_data` says what the gate answers while nothing was measured of the new release.
    """

    metric: MetricName
    kind: Quality
    component: Name | None = None
    quantile: float | None = None
    compare: Compare = "site"
    max_increase: LimitText | None = None
    max_decrease: LimitText | None = None
    bound: Finite | None = None
    min_samples: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 100
    confidence: float = 0.95
    no_data: NoData = "wait"


class Limit(msgspec.Struct, frozen=True):
    """A limit as figures: at most `slope` x reference + `offset` when `above`, else at least that."""

    above: bool
    slope: float
    offset: float
    relative: bool

    def of(self, reference: float) -> float:
        """Return what is still allowed beside this reference."""
        return self.slope * reference + self.offset


def limits_of(gate: GateSpec) -> tuple[Limit, ...]:
    """Return the gate's limits, the one above first."""
    limits: list[Limit] = []
    for above, text in ((True, gate.max_increase), (False, gate.max_decrease)):
        if text is not None:
            sign = 1.0 if above else -1.0
            number, relative = float(text.removesuffix("%")), text.endswith("%")
            slope, offset = (1.0 + sign * number / 100, 0.0) if relative else (1.0, sign * number)
            limits.append(Limit(above, slope, offset, relative))
    return tuple(limits)


def check_gates(path: str, gates: Sequence[GateSpec]) -> Iterator[Problem]:
    """Yield what is wrong with the gates of a rollout."""
    if len(gates) > MAX_GATES:
        yield Problem(
            path, f"{len(gates)} gates are more than {MAX_GATES}", "the more gates, the slower each is sure"
        )
    seen: set[tuple[object, ...]] = set()
    for index, gate in enumerate(gates):
        yield from check_gate(f"{path}[{index}]", gate)
        key = (gate.metric, gate.component, gate.kind, gate.quantile, gate.compare)
        if key in seen:
            yield Problem(
                f"{path}[{index}]", f"{gate.metric} is judged twice in the same way", "leave one out"
            )
        seen.add(key)


def check_gate(path: str, gate: GateSpec) -> Iterator[Problem]:
    """Yield what is wrong with one gate: above all limits that nothing could ever break."""
    if gate.max_increase is None and gate.max_decrease is None:
        hint = "write max_increase: 10% or max_decrease: 0.01"
        yield Problem(path, "states no limit, so nothing could break it", hint)
    if not MIN_CONFIDENCE <= gate.confidence <= MAX_CONFIDENCE:
        expected = f"expected {MIN_CONFIDENCE} to {MAX_CONFIDENCE}, got {gate.confidence:g}"
        yield Problem(f"{path}.confidence", expected, "such as 0.95")
    yield from _check_quantile(path, gate)
    yield from _check_bound(path, gate)
    yield from _check_reach(path, gate)


def _check_quantile(path: str, gate: GateSpec) -> Iterator[Problem]:
    if gate.kind != "quantile":
        if gate.quantile is not None:
            yield Problem(f"{path}.quantile", f"means nothing with kind: {gate.kind}", "write kind: quantile")
    elif gate.quantile is None:
        yield Problem(f"{path}.quantile", "is missing", "which quantile is judged, such as 0.95")
    elif not MIN_QUANTILE <= gate.quantile <= MAX_QUANTILE:
        expected = f"expected {MIN_QUANTILE} to {MAX_QUANTILE}, got {gate.quantile:g}"
        yield Problem(f"{path}.quantile", expected, "such as 0.95")


def _check_bound(path: str, gate: GateSpec) -> Iterator[Problem]:
    if gate.bound is None:
        if gate.compare == "bound":
            yield Problem(f"{path}.bound", "is missing", "the number that the new release is compared with")
        return
    if gate.compare == "cohort":
        yield Problem(f"{path}.bound", "means nothing with compare: cohort", "write compare: bound")
    if gate.kind == "rate" and not 0 <= gate.bound <= 1:
        yield Problem(f"{path}.bound", f"a rate lies between 0 and 1, got {gate.bound:g}", "5 % is 0.05")
    if gate.kind == "quantile" and gate.bound <= 0:
        yield Problem(f"{path}.bound", f"expected more than 0, got {gate.bound:g}", "in the metric's unit")
    if gate.bound < 0:
        for name in ("max_increase", "max_decrease"):
            if (getattr(gate, name) or "").endswith("%"):
                hint = "write the limit as a number"
                yield Problem(f"{path}.{name}", "a share of a number below 0 says nothing", hint)


def _check_reach(path: str, gate: GateSpec) -> Iterator[Problem]:
    for limit in limits_of(gate):
        name, text = (
            ("max_increase", gate.max_increase) if limit.above else ("max_decrease", gate.max_decrease)
        )
        where, never = f"{path}.{name}", "so nothing could break it"
        if limit.slope <= 0:
            yield Problem(where, f"nothing above 0 falls by more than {text}, {never}", "such as 10%")
        elif gate.kind != "mean":
            highest = 1.0 if gate.kind == "rate" else float("inf")
            bound = gate.bound if gate.compare == "bound" else None
            allowed = limit.of(bound if bound is not None else 0.0 if limit.above else highest)
            if limit.above and allowed >= highest:
                yield Problem(where, f"a rate is never more than 1, {never}", "1 percentage point is 0.01")
            elif not limit.above and allowed <= 0:
                yield Problem(where, f"it is never less than 0, {never}", "write a smaller limit")
