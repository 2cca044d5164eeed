"""A rollout is approved, paused, resumed, explained and aborted over the command line, with real agents."""

from __future__ import annotations

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet

pytestmark = pytest.mark.e2e

DOCUMENT = """
apiVersion: skerry/v1
kind: Rollout
metadata: {name: spring}
spec:
  release: talker@1.1.0
  sites: "*"
  health: {deadline: 20s, soak: 300ms}
  waves:
    - {name: canary, size: "1", soak: 0s}
    - {name: rest, size: 100%, soak: 0s, approval: manual}
"""


def test_a_rollout_is_steered_by_people(fleet: TestFleet) -> None:
    agents: dict[str, AgentProcess] = {}
    for site in ("harbour", "airport"):
        fleet.make_site(site)
        agents[site] = fleet.add_agent(site, f"host-{site}")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    fleet.push("1.1.0")
    preview = fleet.run("rollout", "preview", "talker@1.1.0", "--sites", "*", "--waves", "1,100%")
    assert "wave-1: 1 site: " in preview

    fleet.run("apply", "-f", "-", stdin=DOCUMENT)
    fleet.until(lambda: "waits for approval" in fleet.get("get", "rollouts", "spring")["why"])
    assert "rest (0 sites) is waiting: waits for approval" in fleet.run("rollout", "explain", "spring")
    fleet.run("rollout", "pause", "spring", "--why", "lunch")
    fleet.until(lambda: fleet.rollout_state("spring") == "paused")
    assert "lunch" in fleet.run("rollout", "status", "spring")
    fleet.run("rollout", "approve", "spring", "--wave", "rest")
    fleet.run("rollout", "resume", "spring")
    for agent in agents.values():
        fleet.until_runs(agent, "1.1.0")
    fleet.run("rollout", "watch", "spring")

    fleet.push("1.2.0")
    name = "summer"
    start = ("rollout", "start", "talker@1.2.0", "--sites", "*", "--name", name, "--waves", "1,100%")
    fleet.run(*start, "--soak", "300ms", "--wave-soak", "1h")
    fleet.until(
        lambda: any("1.2.0" in str(agent.application("talker").get("release")) for agent in agents.values())
    )
    fleet.run("rollout", "abort", name)
    fleet.run("rollout", "watch", name, code=1)
    assert fleet.rollout_state(name) == "aborted"
    for agent in agents.values():
        fleet.until_runs(agent, "1.1.0")
