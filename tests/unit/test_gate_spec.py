"""Gates as people write them: what could never decide anything is refused, with the place and a way out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from skerry.spec.gates import GateSpec, Limit, check_gate, check_gates, limits_of

pytestmark = pytest.mark.rollout

RATE = {"metric": "errors", "kind": "rate", "max_increase": "0.5%"}
P95 = {"metric": "latency_s", "kind": "quantile", "quantile": 0.95, "max_increase": "10%"}
SCORE = {"metric": "score", "kind": "mean", "max_decrease": "0.01"}


def gate_of(fields: dict[str, Any], **changes: object) -> GateSpec:
    kept = {key: value for key, value in {**fields, **changes}.items() if value is not None}
    return msgspec.convert(kept, type=GateSpec)


@pytest.mark.parametrize(
    "gate",
    (
        gate_of(RATE),
        gate_of(P95),
        gate_of(SCORE, max_increase="2%"),
        gate_of(RATE, compare="bound", bound=0.02),
        gate_of(P95, compare="cohort", no_data="fail", min_samples=1000, confidence=0.99),
        gate_of(SCORE, compare="bound", bound=-3.5),
        gate_of(RATE, max_increase="0"),
    ),
)
def test_a_gate_that_can_decide_has_no_problems(gate: GateSpec) -> None:
    assert list(check_gate("spec.gates[0]", gate)) == []


@pytest.mark.parametrize(
    ("gate", "path", "part"),
    (
        (gate_of(RATE, max_increase=None), "", "no limit"),
        (gate_of(RATE, max_increase="1"), ".max_increase", "never more than 1"),
        (
            gate_of(RATE, compare="bound", bound=0.5, max_increase="100%"),
            ".max_increase",
            "never more than 1",
        ),
        (gate_of(RATE, compare="bound", bound=0.1, max_decrease="0.2"), ".max_decrease", "never less than 0"),
        (gate_of(RATE, max_decrease="1"), ".max_decrease", "never less than 0"),
        (gate_of(P95, max_decrease="100%"), ".max_decrease", "nothing above 0"),
        (gate_of(SCORE, max_decrease="120%"), ".max_decrease", "nothing above 0"),
        (gate_of(P95, quantile=None), ".quantile", "is missing"),
        (gate_of(P95, quantile=1.0), ".quantile", "expected 0.001 to 0.9999"),
        (gate_of(RATE, quantile=0.5), ".quantile", "means nothing"),
        (gate_of(RATE, confidence=1.0), ".confidence", "expected 0.5"),
        (gate_of(RATE, compare="bound"), ".bound", "is missing"),
        (gate_of(RATE, compare="cohort", bound=0.1), ".bound", "means nothing"),
        (gate_of(RATE, bound=1.5), ".bound", "between 0 and 1"),
        (gate_of(P95, bound=0.0), ".bound", "more than 0"),
        (gate_of(SCORE, compare="bound", bound=-1.0, max_decrease="5%"), ".max_decrease", "below 0"),
    ),
)
def test_what_could_never_decide_is_refused_where_it_stands(gate: GateSpec, path: str, part: str) -> None:
    problems = list(check_gate("spec.gates[0]", gate))
    assert [
        problem for problem in problems if problem.path == f"spec.gates[0]{path}" and part in problem.message
    ]
    assert all(problem.hint for problem in problems)


@pytest.mark.parametrize("limit", ("ten", "-1", "10 %", "", "1e3", "0x1"))
def test_a_limit_that_is_none_does_not_decode(limit: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        gate_of(RATE, max_increase=limit)


def test_all_problems_of_all_gates_are_told_at_once() -> None:
    problems = list(
        check_gates("spec.gates", [gate_of(RATE, confidence=2.0, quantile=0.5), gate_of(P95), gate_of(P95)])
    )
    assert [problem.path for problem in problems] == [
        "spec.gates[0].confidence",
        "spec.gates[0].quantile",
        "spec.gates[2]",
    ]
    assert next(iter(check_gates("spec.gates", [gate_of(RATE)] * 33))).path == "spec.gates"


def test_limits_are_absolute_or_relative() -> None:
    assert limits_of(gate_of(RATE, max_decrease="0.2")) == (
        Limit(True, 1.005, 0.0, True),
        Limit(False, 1.0, -0.2, False),
    )
    assert Limit(True, 1.1, 0.0, True).of(20) == pytest.approx(22)
