"""Evidence gates: false rollbacks however often one looks, and samples until a degradation is found.

Over 2,000 simulated rollouts each, beside two rules in common use: failing when the last window's figure exceeds a
threshold, and a t-test computed anew at each look. What is simulated is described in `rollout_gates`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import rollout_deciding, rollout_gates, rollout_simulation
from tests.bench.figure import Figure


def figures() -> Iterator[Figure]:
    """Measure decisions, the gates and the simulator."""
    yield from rollout_deciding.figures()
    yield from rollout_gates.figures()
    yield from rollout_simulation.figures()
