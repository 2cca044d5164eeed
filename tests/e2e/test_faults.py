"""Faults of machines and people: taken ports, killed hubs, damaged files, full disks, hubs made anew."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from skerry.kit.digests import digest_of, hex_of
from skerry.testing.fleet import SKERRY, AgentProcess, free_port
from tests.contract.tiny_disk import tiny_disk
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import ask, write_release

pytestmark = pytest.mark.e2e


def serve(fleet: TestFleet, data: Path, port: int) -> tuple[int, str]:
    """Serve a hub that is expected to refuse to start; return its exit code and error."""
    done = fleet.try_run("hub", "serve", "--data", str(data), "--listen", f"127.0.0.1:{port}")
    return done.returncode, done.stderr


def running(fleet: TestFleet, ballast: bytes = b"") -> AgentProcess:
    """Return the agent of a host that runs 1.0.0 for good."""
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0", ballast={"weights.bin": ballast} if ballast else None)
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    return agent


def pid_of(said: str) -> str:
    """Return the process that answered."""
    return said.rsplit(maxsplit=1)[-1]


def test_a_second_hub_says_what_is_taken(fleet: TestFleet) -> None:
    code, error = serve(fleet, fleet.folder / "second", fleet.hub.port)
    assert (code, f"cannot listen on 127.0.0.1:{fleet.hub.port}" in error) == (69, True), error
    assert "choose another with --listen" in error
    code, error = serve(fleet, fleet.hub.data, free_port())
    assert (code, f"another hub serves {fleet.hub.data}" in error) == (5, True), error
    assert fleet.get("get", "sites") == [], "the first one serves on"


def test_a_push_goes_on_after_the_hub_was_killed_in_the_middle_of_it(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    fleet.push("1.0.0")
    fleet.hub.kill()
    fleet.hub.start()
    weights = os.urandom(30_000_000)
    path = write_release(fleet.folder / "release", "1.1.0", ballast={"weights.bin": weights})
    partial = fleet.hub.data / "uploads" / "partial" / hex_of(digest_of(weights))
    with subprocess.Popen([*SKERRY, "release", "push", str(path)], env=fleet.env) as push:
        fleet.until(lambda: (partial.exists() and partial.stat().st_size > 0) or push.poll() is not None)
        fleet.hub.kill()
        push.kill()
    fleet.hub.start()
    assert [release["name"] for release in fleet.get("get", "releases")] == ["talker@1.0.0"]
    result = fleet.get("release", "push", str(path))
    assert result["created"]
    assert result["skipped_bytes"] > 0
    assert result["uploaded_bytes"] < len(weights)
    assert {release["name"] for release in fleet.get("get", "releases")} == {"talker@1.0.0", "talker@1.1.0"}
    assert [site["name"] for site in fleet.get("get", "sites")] == ["harbour"]
    blob = hex_of(digest_of(weights))
    assert [found.read_bytes() == weights for found in (fleet.hub.data / "blobs").rglob(blob)] == [True]


def test_a_damaged_database_of_the_hub_is_named_and_left_alone(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    fleet.hub.stop()
    database = fleet.hub.data / "hub.db"
    content = database.read_bytes()
    quarter = len(content) // 4
    damaged = content[:quarter] + os.urandom(2 * quarter) + content[3 * quarter :]
    database.write_bytes(damaged)
    code, error = serve(fleet, fleet.hub.data, fleet.hub.port)
    assert (code, str(database) in error) == (2, True), error
    assert "damaged" in error
    assert database.read_bytes() == damaged
    database.write_bytes(content)
    fleet.hub.start()
    assert [site["name"] for site in fleet.get("get", "sites")] == ["harbour"]


@pytest.mark.rule("HOST-4")
def test_an_agent_that_lost_its_database_adopts_what_runs_and_is_heard_again(fleet: TestFleet) -> None:
    agent = running(fleet)
    said = fleet.until_runs(agent, "1.0.0")
    agent.stop()
    fleet.hub.stop()
    (agent.data / "agent.db").write_bytes(os.urandom(20_000))
    (agent.data / "status.json").unlink()

    # Nobody tells it anything, and what runs is kept.
    agent.start()
    assert fleet.until_runs(agent, "1.0.0") == said, "the same process"

    fleet.hub.start()
    fleet.until(lambda: agent.status().get("observed", {}).get("generation", 0) > 0, agent.log.read_text)
    fleet.until(lambda: "agent.database_lost" in fleet.run("get", "events"), agent.log.read_text)
    assert fleet.until_runs(agent, "1.0.0") == said
    ask(agent.endpoint("talker", "mouth"), "/crash")
    fleet.until_runs(agent, "1.0.0", not_pid=pid_of(said))
    host = fleet.get("get", "hosts", "edge")
    assert host["generation_held"] == host["generation_wanted"]
    assert [path.name for path in agent.data.glob("agent.db.corrupt-?")] == ["agent.db.corrupt-1"]


@pytest.mark.rule("BLOB-1")
def test_a_blob_that_was_damaged_on_disk_is_fetched_again_and_never_laid_out(fleet: TestFleet) -> None:
    weights = os.urandom(300_000)
    agent = running(fleet, weights)
    agent.stop()
    name = hex_of(digest_of(weights))
    blob = agent.data / "blobs" / "sha256" / name[:2] / name
    # Under another inode, because the files of the release that runs are hard links to the blob.
    blob.unlink()
    blob.write_bytes(weights[:1000] + bytes([weights[1000] ^ 1]) + weights[1001:])
    agent.start()
    fleet.push("1.1.0", ballast={"weights.bin": weights})
    fleet.run("rollout", "watch", fleet.roll_out("1.1.0"))
    fleet.until_runs(agent, "1.1.0")
    laid_out = [path.read_bytes() for path in (agent.data / "releases").glob("*/bundles/mouth/weights.bin")]
    assert laid_out
    assert all(content == weights for content in laid_out)
    assert blob.read_bytes() == weights
    assert "weights.bin was damaged on disk" in fleet.run("get", "events")


@pytest.mark.rule("HOST-1")
def test_a_full_disk_keeps_the_good_release_and_an_update_waits_for_room(fleet: TestFleet) -> None:
    place = fleet.folder / "agents" / "edge" / "data"
    with tiny_disk(place, size_bytes=48 << 20):
        try:
            agent = running(fleet)
            said = fleet.until_runs(agent, "1.0.0")
            fleet.push("1.1.0", ballast={"weights.bin": os.urandom(20 << 20)})
            rollout = fleet.roll_out("1.1.0")

            def why() -> str:
                return str(fleet.get("get", "hosts", "edge")["applications"]["talker"].get("why", ""))

            fleet.until(lambda: "disk full" in why(), agent.log.read_text)
            assert ask(agent.endpoint("talker", "mouth")) == said
            assert fleet.rollout_state(rollout) == "running", "a full disk is no verdict on a release"
            subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
            fleet.run("rollout", "watch", rollout)
            fleet.until_runs(agent, "1.1.0")
        finally:
            fleet.close()


def test_an_agent_starts_once_and_only_with_the_trust_root_it_joined_with(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.until(agent.status)
    run = ("agent", "run", "--data", str(agent.data))
    done = fleet.try_run(*run)
    assert done.returncode == 5, done.stderr
    assert f"another agent runs on {agent.data}" in done.stderr
    agent.stop()
    root = agent.data / "trust-root.json"
    root.write_bytes(root.read_bytes() + b"\n")
    done = fleet.try_run(*run)
    assert done.returncode == 76, done.stderr
    assert "trust root was altered" in done.stderr


@pytest.mark.rule("TRUST-3")
def test_a_hub_made_anew_at_the_same_address_is_not_believed(fleet: TestFleet) -> None:
    agent = running(fleet)
    said = fleet.until_runs(agent, "1.0.0")
    token = fleet.get("site", "token", "harbour")["token"]
    fleet.hub.stop()
    fleet.hub.data.rename(fleet.hub.folder / "before")
    fleet.hub.start()
    fleet.until(lambda: "code=link.tls" in agent.log.read_text(), agent.log.read_text)
    join = ("agent", "join", "-", "--data", str(fleet.folder / "two"), "--name", "two")
    done = fleet.try_run(*join, stdin=token)
    assert done.returncode == 76, done.stderr
    assert "another root of trust" in done.stderr
    assert not (fleet.folder / "two" / "keys").exists(), "nothing was made for the stranger"
    assert fleet.until_runs(agent, "1.0.0") == said
