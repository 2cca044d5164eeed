"""How often callers may ask: each is held to its own rate, and no table grows without bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.carrier.limits import (
    DELTA_RATE,
    HOST_RATE,
    STRANGER_RATE,
    CarrierLimits,
    Delays,
    Gate,
    Rate,
    Rates,
    TooMany,
    Turns,
    address_of,
)
from skerry.kit.errors import Denied, Unavailable
from skerry.spec.problem_details import problem_of
from skerry.testing.clock import SimulatedClock

pytestmark = pytest.mark.trust

RATE = Rate(per_s=2.0, burst=5.0)


@given(st.lists(st.floats(0.0, 3.0), max_size=200))
def test_no_more_is_granted_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    rates, now, granted = Rates(RATE), 0.0, 0
    for pause in pauses:
        now += pause
        granted += rates.take("one", now) == 0.0
    assert granted <= RATE.burst + RATE.per_s * now + 1e-6


@given(st.floats(0.0, 10.0))
def test_who_waits_as_long_as_told_is_let_in(pause: float) -> None:
    rates = Rates(RATE)
    now = pause
    while (wait_s := rates.take("one", now)) == 0.0:
        pass
    assert rates.take("one", now + wait_s + 1e-6) == 0.0


@pytest.mark.rule("DOOR-4")
def test_what_one_caller_does_is_not_counted_against_another() -> None:
    rates = Rates(RATE)
    while rates.take("loud", 0.0) == 0.0:
        pass
    assert rates.take("quiet", 0.0) == 0.0


def test_tables_forget_who_was_idle_longest_and_never_grow_beyond_their_size() -> None:
    rates = Rates(RATE, most=10)
    delays = Delays(free=0, longest_s=60.0, most=10)
    gate = Gate(proven=RATE, failures=RATE, most=10)
    for number in range(1000):
        rates.take(f"caller {number}", 0.0)
        delays.fail(f"caller {number}", 0.0)
        gate.prove(f"caller {number}")
        gate.enter("somewhere", f"caller {number}", 0.0)
        gate.fail(f"address {number}", "nobody", 0.0)
    assert (len(rates), len(delays), len(gate)) == (10, 10, 30)


def test_failures_delay_the_next_attempt_longer_each_time_and_a_success_ends_that() -> None:
    delays, now, waits = Delays(free=3, longest_s=60.0), 0.0, []
    for _ in range(12):
        now += delays.wait_s("one", now)
        delays.fail("one", now)
        waits.append(delays.wait_s("one", now))
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert delays.wait_s("other", now) == 0.0
    delays.succeed("one")
    assert delays.wait_s("one", now) == 0.0


def test_so_many_at_a_time_and_no_trace_of_those_who_are_done() -> None:
    turns = Turns(2)
    with turns.turn("one"), turns.turn("one"), turns.turn("other"):
        with pytest.raises(TooMany), turns.turn("one"):
            raise AssertionError
        assert len(turns) == 2
    assert len(turns) == 0


@pytest.mark.rule("DOOR-4")
def test_a_flood_of_strangers_keeps_nobody_out_who_is_known_at_the_same_address() -> None:
    clock = SimulatedClock()
    limits = CarrierLimits(clock)
    with limits.guard("10.0.0.1", "known"):
        pass
    refused = 0
    for number in range(5000):
        try:
            with limits.guard("10.0.0.1", f"stranger {number}"):
                raise Denied("host.unknown", "no")
        except TooMany:
            refused += 1
        except Denied:
            pass
    assert refused == 5000 - STRANGER_RATE.burst
    with limits.guard("10.0.0.1", "known"):
        pass
    with limits.guard("10.0.0.2", "another"):
        pass
    with pytest.raises(TooMany), limits.guard("10.0.0.1", "new"):
        raise AssertionError
    clock.advance(60.0)
    with limits.guard("10.0.0.1", "new"):
        pass


@pytest.mark.rule("DOOR-4")
def test_nobody_elsewhere_uses_up_a_hosts_rate_by_claiming_its_name() -> None:
    limits = CarrierLimits(SimulatedClock())
    for address in ("10.0.0.1", "10.0.0.2"):
        with limits.guard(address, "host"):
            pass
    for _ in range(int(HOST_RATE.burst)):
        with limits.guard("10.0.0.2", "host"):
            pass
    with pytest.raises(TooMany), limits.guard("10.0.0.2", "host"):
        raise AssertionError
    with limits.guard("10.0.0.1", "host"):
        pass


def test_a_hub_that_is_not_ready_is_nobodys_failure() -> None:
    limits = CarrierLimits(SimulatedClock())
    for _ in range(5000):
        with pytest.raises(Unavailable, match="later"), limits.guard("10.0.0.1", "host"):
            raise Unavailable("hub.busy", "later")


def test_a_relay_may_ask_for_deltas_as_often_as_the_hosts_behind_it() -> None:
    limits = CarrierLimits(SimulatedClock())
    for _ in range(8 * int(DELTA_RATE.burst)):
        limits.take_deltas("relay:gate", hosts=8)
    with pytest.raises(TooMany):
        limits.take_deltas("relay:gate", hosts=8)


def test_the_refusal_says_when_to_ask_again() -> None:
    limits = CarrierLimits(SimulatedClock())
    for _ in range(int(DELTA_RATE.burst)):
        limits.take_deltas("edge")
    with pytest.raises(TooMany) as refused:
        limits.take_deltas("edge")
    assert refused.value.retry_after_s == 1
    problem = problem_of(refused.value)
    assert (problem.status, problem.title, problem.retryable) == (429, "unavailable", True)


@pytest.mark.parametrize(
    ("host", "address"),
    (
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        (None, ""),
    ),
)
def test_an_ipv6_network_counts_as_one_address(host: str | None, address: str) -> None:
    assert address_of(host) == address
