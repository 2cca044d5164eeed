"""A host whose clock is wrong, jumps, and is right again: what time it believes, also after a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.report import Report
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from tests.unit.test_syncer import Upstream, syncer
from tests.unit.upstream import NOW, desired, hub_time

pytestmark = pytest.mark.trust

CLOSE = timedelta(seconds=2)


class Hub(Upstream):
    """Says the time as the real one does: to whom it is off by more than half a minute."""

    def _answer(self, request: SyncRequest, newest: Report) -> SyncAnswer:
        answer = super()._answer(request, newest)
        off = self.now is not None and abs(newest.sent_at - self.now) > timedelta(seconds=30)
        time = hub_time(newest.sequence, self.now) if off and self.now else None
        return msgspec.structs.replace(answer, time=time)


@pytest.mark.parametrize("year", (1970, 2099))
async def test_a_clock_that_jumps_away_and_back_is_put_right_each_time_and_never_goes_below_the_floor(
    year: int,
) -> None:
    store, upstream, clock = MemoryAgentStore(), Hub(), SimulatedClock(NOW)
    upstream.now, upstream.desired = NOW, desired(5, at=NOW - timedelta(hours=1))
    made = syncer(upstream, store, clock)
    await made.exchange(0.0)
    away = datetime(year, 1, 1, tzinfo=UTC) - clock.now()
    clock.jump(away)
    upstream.desired = None
    await made.exchange(0.0)
    assert abs(made.now() - NOW) < CLOSE
    restarted = syncer(Upstream(), store, clock)
    assert abs(restarted.now() - NOW) < CLOSE, "what was learnt is on disk"
    clock.jump(-away)
    assert made.now() >= NOW - CLOSE, "whatever the clock says, the floor holds"
    again = syncer(Upstream(), store, clock)
    assert again.now() >= NOW - CLOSE, "after a restart, too"
    clock.advance(60)
    upstream.now = NOW + timedelta(seconds=60)
    for _ in range(2):
        await made.exchange(0.0)
    before = made.now()
    assert abs(before - upstream.now) < CLOSE
    clock.advance(3600)
    assert made.now() - before == timedelta(hours=1), "and it goes on"


async def test_a_restart_with_no_hub_and_the_clock_at_1970_goes_on_from_the_newest_signed_instant() -> None:
    store, upstream = MemoryAgentStore(), Upstream()
    upstream.desired = desired(5, at=NOW - timedelta(hours=1))
    await syncer(upstream, store, SimulatedClock(NOW)).exchange(0.0)
    clock = SimulatedClock(datetime(1970, 1, 1, tzinfo=UTC))
    made = syncer(Upstream(), store, clock)
    assert made.now() == NOW - timedelta(hours=1)
    clock.advance(60)
    assert made.now() == NOW - timedelta(hours=1), "it stands still rather than go back"
