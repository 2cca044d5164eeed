"""What of an application's messages goes up: windows, rates, and when it is time."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.topics import UplinkSpec
from skerry.telemetry.reducing import (
    BURST_S,
    FULL_BYTES,
    WAIT_S,
    Bucket,
    Waiting,
    Window,
    add_message,
    is_due,
    is_over,
    number_in,
    reduce_window,
    sample_of,
    take_one,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
RULE = UplinkSpec(topic="plant/count", reduce="mean", window="10s")


def window_of(payloads: list[bytes]) -> Window:
    window: Window | None = None
    for at, payload in enumerate(payloads):
        window = add_message(window, payload, at=float(at))
    assert window is not None
    return window


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_a_mean_is_that_of_all_numbers_of_the_window(values: list[float]) -> None:
    found = reduce_window(window_of([json.dumps(value).encode() for value in values]), "mean")
    assert found.payload is not None
    assert (found.count, found.unreadable) == (len(values), 0)
    told = json.loads(found.payload)
    assert told["count"] == len(values)
    assert (told["min"], told["max"]) == (min(values), max(values))
    assert math.isclose(told["mean"], sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-9)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=50))
def test_whatever_comes_is_counted_and_the_last_is_what_came_last(payloads: list[bytes]) -> None:
    window = window_of(payloads)
    assert reduce_window(window, "last").payload == payloads[-1]
    assert json.loads(reduce_window(window, "count").payload or b"") == {"count": len(payloads)}
    mean = reduce_window(window, "mean")
    assert mean.count + mean.unreadable == len(payloads)


@pytest.mark.parametrize(
    ("payload", "number"),
    (
        (b"7", 7.0),
        (b' {"value": 1.5, "time": "x"}', 1.5),
        (b'{"value": "7"}', None),
        (b"true", None),
        (b"1e999", None),
        (b"NaN", None),
        (b"[" * 3000, None),
        (b"7" * 5000, None),
        (b"\xff", None),
    ),
)
def test_a_number_is_one_in_json_or_the_value_of_an_object(payload: bytes, number: float | None) -> None:
    assert number_in(payload) == number


def test_a_window_ends_by_its_length_and_when_the_clock_is_set_back() -> None:
    window = Window(begin=100.0, count=1)
    assert not is_over(window, RULE, now=100.0)
    assert not is_over(window, RULE, now=109.9)
    assert is_over(window, RULE, now=110.0)
    assert is_over(window, RULE, now=99.0)


def test_a_sample_says_of_how_many_it_is_one() -> None:
    assert [sample_of(one) for one in ("sample 10", "mean", None)] == [10, 0, 0]


@given(
    st.floats(min_value=0.01, max_value=100),
    st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=200),
)
def test_no_more_go_than_the_rate_and_one_burst(rate: float, pauses: list[float]) -> None:
    bucket: Bucket | None = None
    now, gone = 0.0, 0
    for pause in pauses:
        now += pause
        bucket, may = take_one(bucket, rate, now=now)
        gone += may
    assert gone <= max(1.0, rate * BURST_S) + rate * now + 1e-6
    assert gone >= 1


def test_something_goes_up_when_it_is_urgent_or_old_or_much() -> None:
    low = Waiting("low", 1, 100, 1000.0)
    assert not is_due([], now=1000.0)
    assert not is_due([low], now=1000.0 + WAIT_S["low"] - 1)
    assert is_due([low], now=1000.0 + WAIT_S["low"])
    assert is_due([low, Waiting("high", 1, 100, 1000.0)], now=1000.0)
    assert is_due([Waiting("low", 9, FULL_BYTES, 1000.0)], now=1000.0)
    assert is_due([low], now=900.0), "a clock that was set back keeps nothing for ever"
