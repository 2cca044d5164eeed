"""A site with no hub: it runs on, restarts, comes up after a reboot, and catches up when the hub is back."""

from __future__ import annotations

import os
import signal

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.processes import processes_of
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import ask

pytestmark = pytest.mark.e2e


def reboot(agent: AgentProcess) -> None:
    """Take everything of a host away at once, as a power cut does, and start its agent again."""
    for _ in range(10):
        for pid in processes_of(agent.folder):
            os.kill(pid, signal.SIGKILL)
        if not processes_of(agent.folder):
            break
    agent.kill()
    agent.start()


def running(fleet: TestFleet, version: str = "1.0.0") -> AgentProcess:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push(version)
    fleet.run("rollout", "watch", fleet.roll_out(version))
    return agent


@pytest.mark.rule("HOST-4")
def test_with_no_hub_applications_run_on_restart_and_come_up_after_a_reboot(fleet: TestFleet) -> None:
    agent = running(fleet)
    said = fleet.until_runs(agent, "1.0.0")
    fleet.hub.kill()

    ask(agent.endpoint("talker", "mouth"), "/crash")
    said = fleet.until_runs(agent, "1.0.0", not_pid=said.split()[-1])

    agent.kill()
    assert ask(agent.endpoint("talker", "mouth")) == said, "the application outlives its agent"
    agent.start()
    assert fleet.until_runs(agent, "1.0.0") == said, "and is adopted, not started again"

    reboot(agent)
    fleet.until_runs(agent, "1.0.0", not_pid=said.split()[-1])


@pytest.mark.rule("SYNC-4")
def test_what_happened_offline_arrives_once_and_in_order(fleet: TestFleet) -> None:
    agent = running(fleet)
    said = fleet.until_runs(agent, "1.0.0")
    fleet.hub.stop()
    for _ in range(3):
        ask(agent.endpoint("talker", "mouth"), "/crash")
        said = fleet.until_runs(agent, "1.0.0", not_pid=said.split()[-1])
    agent.kill()
    agent.start()
    fleet.hub.start()

    def heard() -> list[str]:
        events = fleet.get("get", "events", "--limit", "1000")
        ended = [event["event"] for event in reversed(events) if event["event"]["kind"] == "component.ended"]
        return [event["message"] for event in ended] if len(ended) >= 3 else []

    messages = fleet.until(heard)
    assert [message.split(";")[1].split()[1] for message in messages] == ["1", "2", "3"]
    instants = [event["event"]["at"] for event in reversed(fleet.get("get", "events", "--limit", "1000"))]
    assert instants == sorted(instants)


def test_a_site_that_missed_five_releases_goes_straight_to_the_newest(fleet: TestFleet) -> None:
    agent = running(fleet)
    agent.stop()
    for version in ("1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0"):
        fleet.push(version)
        fleet.roll_out(version)
    agent.start()
    fleet.until_runs(agent, "1.5.0")
    fleet.until(lambda: fleet.rollout_state("to-1-5-0") == "succeeded")
    log = agent.log.read_text()
    assert [version for version in ("1.1.0", "1.2.0", "1.3.0", "1.4.0") if f"talker@{version}" in log] == []
    assert fleet.rollout_state("to-1-1-0") == "superseded"


@pytest.mark.rule("HOST-1")
@pytest.mark.rule("HOST-3")
def test_an_offline_host_goes_back_by_itself_and_tells_later(fleet: TestFleet) -> None:
    agent = running(fleet)
    fleet.push("2.0.0", "unwell", failures=20)
    rollout = fleet.roll_out("2.0.0")
    fleet.until(lambda: agent.application("talker").get("phase") == "starting")
    fleet.hub.kill()
    fleet.until_runs(agent, "1.0.0")
    agent.kill()
    agent.start()
    fleet.until_runs(agent, "1.0.0")
    fleet.hub.start()
    fleet.until(lambda: fleet.rollout_state(rollout) == "failed")
    assert agent.log.read_text().count("release.trial message=talker@2.0.0") == 1


@pytest.mark.rule("HOST-2")
def test_killing_the_agent_at_any_moment_of_an_update_does_no_harm(fleet: TestFleet) -> None:
    agent = running(fleet)
    fleet.push("1.1.0", ballast={"weights.bin": os.urandom(200_000)})
    fleet.roll_out("1.1.0", soak="1s")
    # Each life of the agent ends at the next line of its log: after every step it takes, it is killed once.
    for _ in range(12):
        size = agent.log.stat().st_size
        fleet.until(lambda size=size: agent.log.stat().st_size > size)  # type: ignore[misc]
        agent.kill()
        agent.start()
        assert len(servers(agent)) <= 1
    fleet.until(lambda: agent.application("talker").get("phase") == "running", agent.log.read_text)
    assert len(servers(agent)) == 1


def servers(agent: AgentProcess) -> list[int]:
    """Return the processes of the test application on a host, without their keepers."""
    return [
        pid
        for pid, arguments in processes_of(agent.folder).items()
        if len(arguments) == 2 and arguments[1].endswith("app.py")
    ]
