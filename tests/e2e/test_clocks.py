"""A host whose clock is wrong: it learns the time from its hub before it takes what the hub desires."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from skerry.agent.identity import load_identity
from skerry.agent.loops.sync import Syncer
from skerry.carrier.link import HttpLink
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.trust]


@pytest.mark.parametrize("year", (1970, 2040))
async def test_a_host_with_a_wrong_clock_learns_the_time_and_takes_its_desired_state(
    fleet: TestFleet, year: int
) -> None:
    fleet.make_site("harbour")
    token = fleet.get("site", "token", "harbour")["token"]
    data = fleet.folder / "edge"
    fleet.run("agent", "join", "-", "--data", str(data), "--name", "edge", stdin=token)
    identity = load_identity(data)
    link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
    wrong = datetime(year, 1, 1, tzinfo=UTC)
    store = MemoryAgentStore()
    try:
        syncer = Syncer(identity, store, link, SimulatedClock(wrong))
        for _ in range(3):
            await syncer.exchange(0.0)
        assert syncer.desired is not None
        assert "edge" in syncer.desired.hosts
        assert abs(syncer.now() - datetime.now(UTC)) < timedelta(minutes=1)

        # Its clock is wrong again after a restart, and what it learnt is not forgotten.
        again = Syncer(identity, store, link, SimulatedClock(wrong))
        assert abs(again.now() - datetime.now(UTC)) < timedelta(minutes=1)
        assert again.desired == syncer.desired
        await again.exchange(0.0)
    finally:
        link.close()
    seen = datetime.fromisoformat(fleet.get("get", "hosts", "edge")["last_seen_at"])
    assert abs(seen - datetime.now(UTC)) < timedelta(minutes=1), "the hub goes by its own clock"
