"""What crosses a relay, by the hour."""

from __future__ import annotations

import pytest

from skerry.relay.traffic import Traffic
from skerry.testing.clock import SimulatedClock

pytestmark = pytest.mark.delivery


def test_the_last_full_hour_is_told_and_no_other() -> None:
    clock = SimulatedClock()
    traffic = Traffic(clock)
    traffic.count(up_sent=5, down_sent=7)
    assert traffic.view().up_sent == 0
    clock.advance(3600.0)
    traffic.count(up_sent=1)
    assert (traffic.view().up_sent, traffic.view().down_sent) == (5, 7)
    clock.advance(3600.0)
    assert (traffic.view().up_sent, traffic.view().down_sent) == (1, 0)
    clock.advance(7200.0)
    assert traffic.view().up_sent == 0


def test_an_estimate_that_falls_into_another_hour_is_not_less_than_nothing() -> None:
    clock = SimulatedClock()
    traffic = Traffic(clock)
    traffic.count(up_sent=5, up_received=-5)
    clock.advance(3600.0)
    assert (traffic.view().up_sent, traffic.view().up_received) == (5, 0)
