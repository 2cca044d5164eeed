"""A rollout is approved, paused, resumed, explained and aborted over the command line, with real agents."""

from __future__ import annotations

import json

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet
from tests.e2e.terminal import OnTerminal

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
    - {name: canary, sites: name=harbour, size: "1", soak: 0s}
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
    preview = fleet.run("rollout", "preview", "-f", "-", "--hosts", stdin=DOCUMENT)
    assert "canary: 1 site of 1 that match name=harbour: harbour" in preview
    assert "host-airport (airport, rest, " in preview

    fleet.run("apply", "-f", "-", stdin=DOCUMENT)
    with OnTerminal(fleet, "rollout", "watch", "spring") as live:
        fleet.until(
            lambda: "waits for approval: skerry rollout approve spring" in live.text, lambda: live.text
        )
        _look_again(fleet)
        fleet.hub.stop()
        fleet.until(lambda: "waiting for the hub. This is as of" in live.text, lambda: live.text)
        fleet.hub.start()
        assert "rest (0 sites) is waiting: waits for approval" in fleet.run("rollout", "explain", "spring")
        fleet.run("rollout", "pause", "spring", "--why", "lunch")
        fleet.until(lambda: fleet.rollout_state("spring") == "paused")
        assert "lunch" in fleet.run("rollout", "status", "spring")
        fleet.run("rollout", "approve", "spring", "--wave", "rest")
        fleet.run("rollout", "resume", "spring")
        for agent in agents.values():
            fleet.until_runs(agent, "1.1.0")
        assert live.wait() == 0
    last = live.text.rpartition("rollout spring (talker@1.1.0): ")[2]
    assert last.startswith("succeeded")
    assert last.count("1/1") == 2, "a line for each wave"
    assert live.sent.rindex("\x1b[?25h") > live.sent.rindex("\x1b[?25l"), "the cursor is back"
    told = [json.loads(line) for line in fleet.run("rollout", "watch", "spring", "-o", "json").splitlines()]
    assert [one["state"] for one in told if one["kind"] == "site"] == ["succeeded"] * 2
    decisions = json.loads(fleet.run("rollout", "explain", "spring", "--history", "-o", "json"))
    assert [one["number"] for one in decisions] == list(range(1, len(decisions) + 1))
    assert decisions[-1]["state"] == "succeeded"
    assert "paused: lunch" in [one["why"] for one in decisions]

    fleet.push("1.2.0")
    name = "summer"
    start = ("rollout", "start", "talker@1.2.0", "--sites", "*", "--name", name, "--waves", "1,100%")
    fleet.run(*start, "--soak", "300ms", "--wave-soak", "1h")
    fleet.until(
        lambda: any("1.2.0" in str(agent.application("talker").get("release")) for agent in agents.values())
    )
    assert "would be taken back" in fleet.run("rollout", "abort", name, "--dry-run")
    fleet.run("rollout", "abort", name)
    fleet.run("rollout", "watch", name, code=1)
    assert fleet.rollout_state(name) == "aborted"
    for agent in agents.values():
        fleet.until_runs(agent, "1.1.0")


def _look_again(fleet: TestFleet) -> None:
    """Watch once more, and leave by Ctrl-C."""
    with OnTerminal(fleet, "rollout", "watch", "spring") as other:
        fleet.until(lambda: "waits for approval" in other.text, lambda: other.text)
        other.interrupt()
        assert other.wait() == 130
        assert "goes on without you" in other.text
        assert other.sent.rindex("\x1b[?25h") > other.sent.rindex("\x1b[?25l")
