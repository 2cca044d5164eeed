"""When two answers say the same: by bytes, by JSON within a tolerance, by what is named of it, by the top entry."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.shadow import Shadow
from skerry.telemetry.agreement import Agreement, Answer, compare_answers, find_values

EXACT, JSON = Shadow(), Shadow(compare="json")
NUMBERS = st.integers(-1000, 1000) | st.floats(-1e6, 1e6, allow_nan=False)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
ANSWERS = st.builds(Answer, st.sampled_from((200, 201, 404, 500, 503)), st.binary(max_size=8))
RULES = st.sampled_from((EXACT, JSON, Shadow(compare="json", fields=("$.a",)), Shadow(compare="top-1")))


def answer(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


def top(label: str) -> Shadow:
    return Shadow(compare="top-1", label=label)


def compare(rule: Shadow, live: object, other: object) -> Agreement:
    return compare_answers(rule, answer(live), answer(other))


@given(RULES, ANSWERS)
def test_an_answer_never_differs_from_itself(rule: Shadow, one: Answer) -> None:
    assert compare_answers(rule, one, one) != "differs"


@given(RULES, ANSWERS, ANSWERS)
def test_a_failure_of_the_live_release_is_no_measure_and_any_other_failure_differs(
    rule: Shadow, live: Answer, other: Answer
) -> None:
    found = compare_answers(rule, live, other)
    assert (live.status < 500) or found == "incomparable"
    if live.status != other.status:
        assert found != "agrees"


@given(RULES, ANSWERS, ANSWERS)
def test_whether_two_comparable_answers_agree_does_not_depend_on_which_is_live(
    rule: Shadow, one: Answer, other: Answer
) -> None:
    both = {compare_answers(rule, one, other), compare_answers(rule, other, one)}
    assert len(both - {"incomparable"}) < 2


@given(TREES)
def test_json_agrees_however_it_is_written(tree: Any) -> None:
    loose = Answer(200, json.dumps(tree, indent=3, sort_keys=True).encode())
    assert compare_answers(JSON, answer(tree), loose) == "agrees"


@given(TREES, TREES)
def test_json_agrees_with_what_is_equal_and_with_nothing_else(one: Any, other: Any) -> None:
    def strict(value: Any) -> Any:
        # In Python a truth value equals a number, which it does not in JSON.
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return repr(value)
        if isinstance(value, list):
            return [strict(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, dict):
            return {key: strict(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        return value

    assert (compare(JSON, one, other) == "agrees") == (strict(one) == strict(other))


@given(NUMBERS, NUMBERS, st.sampled_from(("0", "0.5", "10", "1%", "50%")))
def test_numbers_agree_within_the_tolerance_and_not_beyond(one: float, other: float, tolerance: str) -> None:
    rule = Shadow(compare="json", tolerance=tolerance)
    number = float(tolerance.removesuffix("%"))
    allowed = number / 100 * max(abs(one), abs(other)) if tolerance.endswith("%") else number
    # Where rounding decides, either is right.
    if not math.isclose(abs(one - other), allowed, rel_tol=1e-9, abs_tol=1e-12):
        wanted = "agrees" if abs(one - other) < allowed else "differs"
        assert compare(rule, {"x": [one]}, {"x": [other]}) == wanted


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.lists(NUMBERS, min_size=1, max_size=6))
def test_the_top_entry_is_one_that_none_is_larger_than(one: list[float], other: list[float]) -> None:
    tops = [{place for place, value in enumerate(some) if value == max(some)} for some in (one, other)]
    found = compare(top("$.scores"), {"scores": one}, {"scores": other})
    assert (found == "agrees") == bool(tops[0] & tops[1])


@pytest.mark.parametrize(
    ("rule", "live", "other", "wanted"),
    (
        (top("$.p"), {"p": {"cat": 0.9, "dog": 0.1}}, {"p": {"cat": 0.6, "dog": 0.4}}, "agrees"),
        (top("$.p"), {"p": {"cat": 0.9, "dog": 0.1}}, {"p": {"cat": 0.1, "dog": 0.4}}, "differs"),
        (top("$.label"), {"label": "cat"}, {"label": "cat", "took_ms": 3}, "agrees"),
        (top("$.r[*].l"), {"r": [{"l": "a"}, {"l": "b"}]}, {"r": [{"l": "a"}, {"l": "c"}]}, "differs"),
        (top("$.r[*].l"), {"r": [{"l": "a"}, {"l": "b"}]}, {"r": [{"l": "a"}]}, "differs"),
        (top("$.p"), {"q": 1}, {"p": [1]}, "incomparable"),
        (top("$.p"), {"p": [1]}, {"q": 1}, "differs"),
        (top("$.p"), {"p": [True, False]}, {"p": [1]}, "incomparable"),
        (Shadow(compare="json", fields=("$.score",)), {"score": 1, "id": 1}, {"score": 1, "id": 2}, "agrees"),
        (Shadow(compare="json", fields=("$.score",)), {"id": 1}, {"id": 1}, "incomparable"),
        (Shadow(compare="json", fields=("$.score",)), {"score": 1}, {"id": 1}, "differs"),
        (JSON, {"on": True}, {"on": 1}, "differs"),
    ),
)  # fmt: skip
def test_what_is_named_of_an_answer_is_compared_and_what_it_lacks_proves_nothing(
    rule: Shadow, live: object, other: object, wanted: str
) -> None:
    assert compare(rule, live, other) == wanted


def test_of_answers_that_are_no_success_the_status_alone_counts_except_by_bytes() -> None:
    live, other = Answer(404, b"no such reading"), Answer(404, b"nothing")
    assert compare_answers(JSON, live, other) == "agrees"
    assert compare_answers(EXACT, live, other) == "differs"


@pytest.mark.parametrize("body", (b"", b"\xff", b"[" * 100_000, b"{" * 3, b"[1e999]"))
def test_what_is_no_json_is_no_measure_and_ends_nothing(body: bytes) -> None:
    assert compare_answers(JSON, Answer(200, body), answer(1)) == "incomparable"
    assert compare_answers(JSON, answer(1), Answer(200, body)) == "differs"


def test_what_nests_deeper_than_anybody_compares_ends_nothing() -> None:
    deep = Answer(200, b"[" * 900 + b"]" * 900)
    assert compare_answers(JSON, deep, deep) in ("agrees", "incomparable")


def test_a_path_that_leads_to_too_much_leads_nowhere() -> None:
    wide = [[0] * 200] * 200
    assert find_values("$[*]", wide) == wide
    assert find_values("$[*][*]", wide) == []
