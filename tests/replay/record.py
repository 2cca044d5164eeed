"""Write the recordings that are replayed: decisions of simulated rollouts, and of a hub with hosts that a script moves.

Run `python -m tests.replay.record` after a change of what is decided that is meant, and look at what changed. The same
code writes the same files.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skerry.hub.recording import DecisionFiles
from skerry.ports.hub_store import AppliedReport
from skerry.rollout.recording import Recorder
from skerry.spec.metadata import Metadata
from skerry.spec.report import ApplicationView, Observed
from skerry.spec.rollout import Wave
from skerry.testing.simulation.documents import Fault, ScenarioSpec, SimulatedRelease, SiteGroup
from skerry.testing.simulation.run import simulate
from tests.unit.simulation_world import SMALL, fleet_of, premises
from tests.unit.test_hub_policies import Guarded
from tests.unit.test_hub_steering import rollout

RECORDINGS = Path(__file__).parent / "recordings"

WAVES = (Wave(name="canary", size="2", soak="5m"), Wave(name="rest", max_in_flight="3"))
MIXED = fleet_of(
    SiteGroup(name="office", share="50%"),
    SiteGroup(name="cabin", share="25%", link="business-hours"),
    SiteGroup(name="away", share="25%", link="dead-for-a-week"),
)
CRASHES = (Fault(share="30%", how="crashes"),)


def simulated(recorder: Recorder, name: str, **said: Any) -> None:
    """Record a simulated rollout."""
    told = premises(6, fleet=MIXED, waves=WAVES, **said)
    named = msgspec.structs.replace(told.rollout, metadata=Metadata(name))
    simulate(msgspec.structs.replace(told, rollout=named), recorder)


def record_simulations(recorder: Recorder) -> None:
    """Record one that succeeds, one that is halted and goes back, and one that is aborted."""
    simulated(recorder, "succeeds", scenario=ScenarioSpec(release=SMALL, duration="9d"))
    bad = SimulatedRelease(size="20MiB", faults=CRASHES)
    simulated(recorder, "halts", scenario=ScenarioSpec(release=bad, duration="9d"), seed=3)
    simulated(recorder, "aborted", scenario=ScenarioSpec(release=SMALL, duration="9d", abort_after="10m"))


async def record_hub(folder: Path, recorder: Recorder) -> None:
    """Record a hub: a release that goes everywhere, and one that the second wave refuses."""
    world = Guarded(folder)
    world.hub.rollouts.recorder = recorder
    for name in ("mole", "quay"):
        world.site(name, labels={"region": "south"})
        world.host(f"{name}-edge", name, {})
    for version in ("1", "2"):
        await world.attach(version=version)
    world.clock.advance(60.0)
    await world.applied("operator", rollout("hub-first", "1", {"size": "100%", "max_in_flight": "50%"}))
    await _until_ended(world, "hub-first", lambda site: _done("camera@1"))
    waves = ({"size": "1", "soak": "2m"}, {"size": "100%", "max_in_flight": "2"})
    await world.applied("operator", rollout("hub-second", "2", *waves))
    release = world.hub.store.release("camera@2")
    assert release is not None
    refusing = ApplicationView(
        phase="running", release="camera@1", refused={release.digest: "it crashed"}, why="went back"
    )
    await _until_ended(
        world, "hub-second", lambda site: refusing if site in _later(world) else _done("camera@2")
    )
    world.hub.store.close()


def _later(world: Guarded) -> set[str]:
    """Return the sites of the second wave."""
    return {site for site, one in world.rollout("hub-second").sites.items() if one.wave == 1}


def _done(release: str) -> ApplicationView:
    return ApplicationView(phase="running", release=release)


async def _until_ended(world: Guarded, name: str, view: Callable[[str], ApplicationView]) -> None:
    """Let the hub look every half minute, and its hosts do what they are told between two looks."""
    for _ in range(40):
        assigned = await world.step()
        if world.rollout(name).ended_at is not None:
            return
        world.clock.advance(15.0)
        _report(world, {site: _meanwhile(release, view(site)) for site, release in assigned.items()})
        world.clock.advance(15.0)
    raise AssertionError(world.rollout(name).why)


def _meanwhile(release: str, view: ApplicationView) -> ApplicationView:
    """A host that is to run something else than the view is of has gone back already."""
    return view if release == view.release or view.refused else _done(release)


def _report(world: Guarded, views: Mapping[str, ApplicationView]) -> None:
    now, store = world.clock.now(), world.hub.store
    for host in store.hosts():
        site = store.site(host.site)
        assert site is not None
        applications = {"camera": views[host.site]} if host.site in views else {}
        report = AppliedReport(
            host=host.name, site=host.site, sequence=host.sequence + 1, seen_at=now, sent_at=now,
            clock_offset_s=0.0, generation=site.generation,
            observed=Observed(generation=site.generation, applications=applications),
        )  # fmt: skip
        store.apply_reports([report])


def record(folder: Path) -> None:
    """Write all recordings into an empty folder."""
    recorder = DecisionFiles(folder)
    record_simulations(recorder)
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(record_hub(Path(scratch), recorder))


if __name__ == "__main__":
    shutil.rmtree(RECORDINGS)
    record(RECORDINGS)
