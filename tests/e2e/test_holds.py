"""A hold at a real host: set while the agent runs and while it does not, kept over a kill, and told to its hub."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import TestFleet
from tests.e2e.releases import ask

pytestmark = [pytest.mark.e2e, pytest.mark.rollout]


@pytest.mark.rule("HOST-7")
def test_a_held_host_makes_an_urgent_release_ready_and_runs_the_old_one_until_it_is_released(
    fleet: TestFleet,
) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    data = ("--data", str(agent.data))
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    said = fleet.until_runs(agent, "1.0.0")

    told = json.loads(
        fleet.run("agent", "hold", "--why", "stocktaking", "--until", "8h", *data, "-o", "json")
    )
    assert (told["agent"], told["application"]) == ("knows", "")
    fleet.push("2.0.0")
    gate = ("--soak", "300ms", "--deadline", "20s")
    fleet.run("rollout", "start", "talker@2.0.0", "--sites", "*", "--name", "urgently", "--urgent", *gate)
    fleet.until(lambda: agent.application("talker").get("phase") == "held", lambda: str(agent.status()))
    assert "stocktaking" in fleet.until(
        lambda: text if "held by" in (text := fleet.run("describe", "host", "edge")) else ""
    )
    assert ask(agent.endpoint("talker", "mouth")) == said, "the old one runs on, untouched"

    agent.kill()
    status = fleet.run("agent", "status", *data)
    assert "NOT running" in status and "this host: held by" in status
    agent.start()
    fleet.until(lambda: agent.application("talker").get("phase") == "held")
    assert ask(agent.endpoint("talker", "mouth")) == said, "the old one runs on, untouched"

    # While it does not run, the hold of the host is released, and one of the application is set.
    agent.stop()
    assert "does not run" in fleet.run("agent", "hold", "--why", "an audit", "--application", "talker", *data)
    assert "does not run" in fleet.run("agent", "release-hold", *data)
    agent.start()
    fleet.until(lambda: "an audit" in agent.application("talker").get("why", ""))
    released = json.loads(fleet.run("agent", "release-hold", "--application", "talker", *data, "-o", "json"))
    assert released["hold"] is None
    fleet.until_runs(agent, "2.0.0")
    fleet.run("rollout", "watch", "urgently")
