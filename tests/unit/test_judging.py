"""The judge of self-tests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.reconcile.judging import GoldenAnswer, Verdict, compare_outputs, judge_self_test
from skerry.spec.model import Tolerance

TOLERANCE = Tolerance(absolute=0.1, relative=0.01)


def line(case: str, outputs: Any, latency_ms: float | None = None) -> bytes:
    return json.dumps({"case": case, "outputs": outputs, "latency_ms": latency_ms}).encode() + b"\n"


def judge(output: bytes, *, ended: str = "", models: tuple[str, ...] = ("mind",)) -> Verdict:
    answers = {
        "mind/twos": GoldenAnswer(b"[2, 4]", TOLERANCE),
        "mind/label": GoldenAnswer(b'["dog"]', TOLERANCE),
    }
    return judge_self_test(models, answers, output, ended=ended)


GOOD = line("mind/twos", [2.05, 4], 1.5) + b"loading...\n" + line("mind/label", ["dog"], 2.5)


def test_answers_near_enough_pass_and_tell_their_median_latency() -> None:
    assert judge(GOOD) == Verdict({}, {"mind": 2000})


@pytest.mark.parametrize(
    ("output", "why"),
    (
        (line("mind/twos", [2.5, 4]), "mind/twos: output[0] is 2.5, expected 2"),
        (line("mind/twos", [2, 4, 6]), "another shape: a list of 3, expected a list of 2"),
        (line("mind/twos", 2), "another shape: a single value"),
        (line("mind/twos", [2, 4]), "mind/label: no answer"),
        (line("mind/twos", [2, 4]) + line("mind/label", ["cat"]), "output[0] is 'cat'"),
        (b"", "mind/twos: no answer"),
        (b'{"case": 3}\n{"case": "mind/twos"\n\xff{\n', "no answer"),
    ),
)
def test_answers_that_are_not_right_fail_with_the_reason(output: bytes, why: str) -> None:
    assert why in judge(output).failures["mind"]


@pytest.mark.rule("HOST-5")
@pytest.mark.parametrize(
    ("limit_ms", "output", "why"),
    (
        (2.0, GOOD, ""),
        (1.9, GOOD, "an answer takes 2 ms, and may take 1.9 ms at the most"),
        (60_000.0, line("mind/twos", [2, 4]) + line("mind/label", ["dog"]), "no latency_ms is told"),
        (
            60_000.0,
            line("mind/twos", [2, 4], -1.0) + line("mind/label", ["dog"], 0.0),
            "no latency_ms is told",
        ),
    ),
)
def test_a_variant_that_is_right_and_too_slow_has_failed(limit_ms: float, output: bytes, why: str) -> None:
    answers = {
        "mind/twos": GoldenAnswer(b"[2, 4]", TOLERANCE),
        "mind/label": GoldenAnswer(b'["dog"]', TOLERANCE),
    }
    verdict = judge_self_test(("mind",), answers, output, ended="", limits_ms={"mind": limit_ms})
    assert why in verdict.failures.get("mind", "")
    assert bool(verdict.failures) == bool(why)


def test_a_not_a_number_is_never_near_enough() -> None:
    assert compare_outputs([float("nan")], [2.0], TOLERANCE)
    assert compare_outputs([float("inf")], [2.0], TOLERANCE)


def test_a_command_that_fails_after_right_answers_fails_all_the_same() -> None:
    assert judge(GOOD, ended="exit code 3").failures == {"mind": "exit code 3"}


def test_of_several_models_the_one_that_answers_wrongly_is_to_blame() -> None:
    answers = {"a/x": GoldenAnswer(b"1", TOLERANCE), "b/x": GoldenAnswer(b"1", TOLERANCE)}
    output = line("a/x", 1) + line("b/x", 9)
    assert judge_self_test(("a", "b"), answers, output, ended="exit code 1").failures.keys() == {"b"}


def test_without_golden_cases_the_exit_code_decides() -> None:
    assert judge_self_test(("mind",), {}, b"", ended="") == Verdict()
    assert judge_self_test(("mind",), {}, b"", ended="exit code 1").failures == {"mind": "exit code 1"}


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda v: st.lists(v, max_size=4),
)


@given(values, values)
def test_any_two_values_can_be_compared(got: Any, expected: Any) -> None:
    assert isinstance(compare_outputs(got, expected, TOLERANCE), str)


@given(
    st.recursive(
        st.floats(allow_nan=False, allow_infinity=False), lambda v: st.lists(v, max_size=4), max_leaves=20
    )
)
def test_every_output_is_near_to_itself(value: Any) -> None:
    assert compare_outputs(value, value, Tolerance(absolute=0, relative=0)) == ""


@given(st.binary(max_size=300))
def test_any_output_is_judged(output: bytes) -> None:
    assert judge(output).failures.keys() == {"mind"}
