"""The main job over the command line, with real processes: push, roll out, answer, update, go back."""

from __future__ import annotations

import pytest

from skerry.testing.processes import processes_of
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import ask

pytestmark = [pytest.mark.e2e, pytest.mark.rollout]


def test_a_release_reaches_unlike_hosts_with_the_variant_that_fits_each(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    fleet.make_site("airport", region="south")
    big = fleet.add_agent("harbour", "edge-big")
    small = fleet.add_agent("airport", "edge-small", {"memory": "512MiB"})
    fleet.push("1.0.0")
    rollout = fleet.roll_out("1.0.0")
    assert " large " in fleet.until_runs(big, "1.0.0")
    assert " small " in fleet.until_runs(small, "1.0.0")
    fleet.until(lambda: fleet.rollout_state(rollout) == "succeeded")

    host = fleet.get("get", "hosts", "edge-small")
    choice = host["applications"]["talker"]["choices"][0]
    assert choice["variant"] == "small"
    assert choice["why"][0] == "large: needs memory >= 1 GiB, has 512 MiB"
    assert host["facts"]["memory_bytes"]["source"] == "override"
    assert "512 MiB" in fleet.run("explain", "variant", "talker", "--host", "edge-small")
    assert fleet.run("rollout", "watch", rollout)
    kinds = {event["event"]["kind"] for event in fleet.get("get", "events")}
    assert {"release.offered", "release.trial", "release.proven"} <= kinds


def test_a_rollout_reaches_only_the_sites_it_selects(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    fleet.make_site("airport", region="south")
    north, south = fleet.add_agent("harbour", "n"), fleet.add_agent("airport", "s")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0", sites="region=north"))
    assert fleet.until_runs(north, "1.0.0")
    assert south.application("talker") == {}


@pytest.mark.rule("HOST-1")
@pytest.mark.rule("HOST-3")
@pytest.mark.parametrize("mood", ("crashes", "unwell"))
def test_hosts_go_back_from_a_bad_release_and_the_rollout_fails(fleet: TestFleet, mood: str) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    fleet.push("2.0.0", mood, failures=5)
    bad = fleet.roll_out("2.0.0")
    fleet.run("rollout", "watch", bad, code=1)
    assert fleet.until_runs(agent, "1.0.0")
    view = fleet.get("get", "rollouts", bad)
    assert view["state"] == "failed"
    assert "mouth" in view["why"]
    started = agent.log.read_text().count("release.trial message=talker@2.0.0")
    assert started == 1

    # A person may say: again. It is tried once more, and refused once more.
    fleet.run("rollout", "retry", bad)
    fleet.until(lambda: agent.log.read_text().count("release.trial message=talker@2.0.0") == 2)
    fleet.run("rollout", "watch", bad, code=1)
    assert fleet.until_runs(agent, "1.0.0")


def test_a_release_that_differs_in_a_model_alone_moves_that_model_alone(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    ballast = {"weights.bin": b"w" * 3_000_000}
    fleet.push("1.0.0", ballast=ballast)
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    before = {path.name for path in (agent.data / "blobs" / "sha256").rglob("*") if path.is_file()}
    fleet.push("1.1.0", ballast=ballast)
    fleet.run("rollout", "watch", fleet.roll_out("1.1.0"))
    fleet.until_runs(agent, "1.1.0")
    new = [
        path
        for path in (agent.data / "blobs" / "sha256").rglob("*")
        if path.is_file() and path.name not in before
    ]
    assert 0 < sum(path.stat().st_size for path in new) < 10_000


def test_nothing_runs_after_a_fleet_has_been_taken_down(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    endpoint = agent.endpoint("talker", "mouth")
    assert ask(endpoint)
    agent.stop()
    assert ask(endpoint), "applications outlive the agent"
    assert "ended talker.mouth." in fleet.run("agent", "down", "--data", str(agent.data))
    assert not ask(endpoint)
    fleet.close()
    assert processes_of(fleet.folder) == {}


def test_site_variables_reach_the_application_and_a_missing_one_is_explained(fleet: TestFleet) -> None:
    fleet.run("site", "create", "bare")
    agent = fleet.add_agent("bare", "edge")
    fleet.push("1.0.0")
    rollout = fleet.roll_out("1.0.0")
    fleet.run("rollout", "watch", rollout, code=1)
    assert "${site.greeting}" in fleet.get("get", "rollouts", rollout)["why"]
    assert agent.application("talker").get("components", {}) == {}
