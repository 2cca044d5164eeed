"""Twelve real agents under one hub: releases go out in waves, stop at the canary, and sites that were away catch up."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

SITES = tuple(f"site-{number:02}" for number in range(12))
AWAY = SITES[8:]
START = ("--soak", "300ms", "--deadline", "20s", "--wave-soak", "0s")


def states(fleet: TestFleet, rollout: str) -> Counter[str]:
    view = fleet.get("get", "rollouts", rollout)
    return Counter(progress["state"] for progress in view["sites"].values())


def waves(fleet: TestFleet, rollout: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.get("get", "rollouts", rollout)["waves"]
    return found


def start(fleet: TestFleet, version: str, *more: str, sizes: str = "1,25%,100%") -> str:
    name = f"to-{version.replace('.', '-')}"
    fleet.run(
        "rollout",
        "start",
        f"talker@{version}",
        "--sites",
        "*",
        "--name",
        name,
        "--waves",
        sizes,
        *START,
        *more,
    )
    return name


@pytest.fixture
def agents(fleet: TestFleet) -> dict[str, AgentProcess]:
    """Twelve sites of one host each."""
    fleet.make_sites(*SITES)
    return {name: fleet.add_agent(name, f"host-{name}") for name in SITES}


def test_twelve_sites_in_waves(fleet: TestFleet, agents: dict[str, AgentProcess]) -> None:
    fleet.push("1.0.0")
    first = start(fleet, "1.0.0", sizes="100%")
    fleet.run("rollout", "watch", first)
    assert states(fleet, first) == {"succeeded": 12}

    # A good release goes through three waves.
    fleet.push("1.1.0")
    second = start(fleet, "1.1.0")
    fleet.run("rollout", "watch", second)
    assert [(wave["state"], wave["members"]) for wave in waves(fleet, second)] == [
        ("passed", 1),
        ("passed", 3),
        ("passed", 8),
    ]

    # Four agents are away from now on, and their sites for longer than is ordinary.
    for name in AWAY:
        agents[name].stop()
        document = (
            f"{{apiVersion: skerry/v1, kind: Site, metadata: {{name: {name}, labels: {{region: north}}}}, "
            "spec: {offline_tolerance: 1s, variables: {greeting: hello}}}"
        )
        fleet.run("apply", "-f", "-", stdin=document)

    # A release that never gets ready stops at the canary, and goes back there.
    fleet.push("1.2.0", "sick")
    third = start(fleet, "1.2.0", "--deadline", "3s")
    fleet.run("rollout", "watch", third, code=1)
    halted = fleet.get("get", "rollouts", third)
    assert halted["state"] == "failed"
    assert states(fleet, third)["failed"] == 1
    offered = [name for name, progress in halted["sites"].items() if progress.get("previous")]
    assert len(offered) == 1, "nobody but the canary was offered it"
    for name in SITES[:8]:
        fleet.until_runs(agents[name], "1.1.0")

    # The next good release reaches everybody who can be heard; the rest follows, and never meets what failed.
    fleet.push("1.3.0")
    fourth = start(fleet, "1.3.0")
    fleet.until(
        lambda: all(wave["state"] == "passed" for wave in waves(fleet, fourth)),
        lambda: fleet.run("rollout", "status", fourth),
    )
    assert states(fleet, fourth) == {"succeeded": 8, "unreachable": 4}
    for name in AWAY:
        agents[name].start()
    fleet.run("rollout", "watch", fourth)
    assert states(fleet, fourth) == {"succeeded": 12}
    for name in AWAY:
        assert "talker@1.2.0" not in agents[name].log.read_text()
