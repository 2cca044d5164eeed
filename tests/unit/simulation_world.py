"""Small simulations: a rollout over a few dozen sites, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from skerry.rollout.facts import Decision, RolloutFact, SiteFact
from skerry.spec.metadata import Metadata
from skerry.spec.rollout import Rollout, RolloutSpec, Wave
from skerry.testing.simulation.documents import (
    DEFAULT_FLEET,
    ScenarioSpec,
    SimulatedFleetSpec,
    SimulatedRelease,
    SiteGroup,
)
from skerry.testing.simulation.fleet import plan_fleet
from skerry.testing.simulation.results import SimulationResult
from skerry.testing.simulation.run import Premises, Recorder, simulate

BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
NEW, OLD = "reader@2", "reader@1"
WAVES = (Wave(name="canary", sites="link=always-on", size="3"), Wave(name="rest", max_in_flight="25%"))
SMALL = SimulatedRelease(size="20MiB")


class Kept:
    """Keeps each decision with all that went into it."""

    def __init__(self) -> None:
        self.decisions: list[tuple[RolloutFact, tuple[SiteFact, ...], datetime, Decision]] = []

    def __call__(
        self, rollout: RolloutFact, fleet: Sequence[SiteFact], now: datetime, decision: Decision
    ) -> None:
        self.decisions.append((rollout, tuple(fleet), now, decision))


def fleet_of(*groups: SiteGroup) -> SimulatedFleetSpec:
    """Return a fleet of these groups."""
    return SimulatedFleetSpec(groups=groups)


def premises(
    sites: int = 40,
    *,
    seed: int = 7,
    fleet: SimulatedFleetSpec = DEFAULT_FLEET.spec,
    scenario: ScenarioSpec | None = None,
    **spec: Any,
) -> Premises:
    """Return what a simulation goes by; `spec` is of the rollout."""
    scenario = scenario or ScenarioSpec(release=SMALL)
    spec = {"release": NEW, "sites": "*", "waves": WAVES} | spec
    return Premises(
        rollout=Rollout(metadata=Metadata("spring"), spec=RolloutSpec(**spec)),
        fleet=plan_fleet(fleet, scenario, sites=sites, seed=seed, previous=OLD),
        scenario=scenario,
        seed=seed,
        starts_at=BEGIN,
    )


def run(sites: int = 40, *, recorder: Recorder | None = None, **said: Any) -> SimulationResult:
    """Return what comes of a small simulation."""
    return simulate(premises(sites, **said), recorder)
