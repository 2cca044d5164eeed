"""Containers outlive what kills everything around them, and come back when they are killed themselves."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from skerry.testing.processes import is_running
from tests.e2e.podman_world import PodmanFleet, talker
from tests.e2e.releases import ask

pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.timeout(300)]


@pytest.fixture
def agent(podman_fleet: PodmanFleet) -> Any:
    """Return an agent that runs a component which counts its starts."""
    found = podman_fleet.one_host()
    podman_fleet.push_shop("1.0.0", talker("store", volume=True))
    podman_fleet.bring("shop@1.0.0")
    podman_fleet.until_says(found, "store", "store 1")
    return found


def test_a_killed_container_is_started_again(podman_fleet: PodmanFleet, agent: Any) -> None:
    process, _ = podman_fleet.pids(podman_fleet.only_container("store"))
    os.kill(process, signal.SIGKILL)
    podman_fleet.until_says(agent, "store", "store 2")


def test_a_container_whose_conmon_was_killed_runs_once_at_the_end(
    podman_fleet: PodmanFleet, agent: Any
) -> None:
    container = podman_fleet.only_container("store")
    process, conmon = podman_fleet.pids(container)
    os.kill(conmon, signal.SIGKILL)

    def one_answers() -> bool:
        """Whether it goes on without its conmon or is replaced: one answers, and no second one lives."""
        found = podman_fleet.only_container("store")
        if not found or not ask(agent.endpoint("shop", "store")):
            return False
        return podman_fleet.pids(found)[0] == process or not is_running(process)

    podman_fleet.until(one_answers)


def test_a_killed_agent_adopts_what_runs(podman_fleet: PodmanFleet, agent: Any) -> None:
    container = podman_fleet.only_container("store")
    endpoint = agent.endpoint("shop", "store")
    agent.kill()
    assert ask(endpoint) == "store 1"
    (agent.data / "status.json").unlink()
    agent.start()
    podman_fleet.until(lambda: agent.application("shop").get("phase") == "running")
    podman_fleet.until_says(agent, "store", "store 1")
    assert podman_fleet.only_container("store") == container


def test_a_killed_engine_ends_nothing_and_is_used_again(podman_fleet: PodmanFleet, agent: Any) -> None:
    container = podman_fleet.only_container("store")
    podman_fleet.engine.kill()
    podman_fleet.until(lambda: "engine.away" in agent.log.read_text())
    assert ask(agent.endpoint("shop", "store")) == "store 1"
    podman_fleet.engine.start()
    podman_fleet.until(lambda: "engine.back" in agent.log.read_text())
    podman_fleet.until_says(agent, "store", "store 1")
    assert podman_fleet.only_container("store") == container
    # And it is not only looked at: what ends now is started again.
    process, _ = podman_fleet.pids(container)
    os.kill(process, signal.SIGKILL)
    podman_fleet.until_says(agent, "store", "store 2")
