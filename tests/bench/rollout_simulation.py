"""Simulated rollouts: 5,000 sites over 14 virtual days, as `skerry simulate` runs them, in processor time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from skerry.spec.metadata import Metadata
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.testing.simulation.documents import DEFAULT_FLEET, DEFAULT_SCENARIO
from skerry.testing.simulation.fleet import plan_fleet
from skerry.testing.simulation.run import Premises, simulate
from tests.bench.figure import Figure

SITES, SEED = 5000, 7
GOAL_S = 60


def figures() -> Iterator[Figure]:
    """Simulate the default fleet and waves."""
    begun, processor = time.monotonic(), time.process_time()
    fleet = plan_fleet(DEFAULT_FLEET.spec, DEFAULT_SCENARIO.spec, sites=SITES, seed=SEED, previous="reader@1")
    result = simulate(
        Premises(
            rollout=Rollout(metadata=Metadata("spring"), spec=RolloutSpec(release="reader@2", sites="*")),
            fleet=fleet,
            scenario=DEFAULT_SCENARIO.spec,
            seed=SEED,
            starts_at=datetime(2026, 1, 5, 8, tzinfo=UTC),
        )
    )
    took_s, processor_s = time.monotonic() - begun, time.process_time() - processor
    assert result.states == {"succeeded": SITES}
    peer = f"goal {GOAL_S}; {processor_s:.1f} s of one processor"
    peer += f"; {result.events:,} events, {result.decisions_made:,} decisions"
    yield Figure("simulate_5000_sites_14_days_s", took_s, "s", peer)
