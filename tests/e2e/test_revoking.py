"""Signed releases over the command line and real processes: verified, revoked, and their publisher as well."""

from __future__ import annotations

import json

import pytest

from skerry.testing.fleet import PUBLISHER
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.trust]


@pytest.mark.rule("VOUCH-3")
def test_a_revoked_release_is_stopped_and_a_revoked_publisher_brings_nothing_more(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    fleet.until_runs(agent, "1.0.0")
    chain = fleet.run("release", "verify", "talker@1.0.0")
    assert PUBLISHER in chain
    assert "Signed metadata" in fleet.run("describe", "host", "edge")

    fleet.run("release", "revoke", "talker@1.0.0", "--why", "it leaks", "--running", "stop")
    fleet.until(lambda: "was revoked: it leaks" in str(agent.application("talker").get("why")))
    fleet.until(lambda: not agent.endpoint("talker", "mouth"))
    assert fleet.try_run("release", "verify", "talker@1.0.0").returncode != 0
    assert "it leaks" in fleet.run("describe", "release", "talker@1.0.0")
    refused = fleet.try_run("rollout", "start", "talker@1.0.0", "--sites", "*", "--name", "again")
    assert refused.returncode != 0
    assert "was revoked: it leaks" in refused.stderr

    # A new release runs in its place; then the publisher's key is stolen.
    fleet.push("1.1.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.1.0"))
    fleet.until_runs(agent, "1.1.0")
    fleet.push("1.2.0")
    key = str(fleet.hub.data / "offline-keys" / "targets.pem")
    fleet.run("publisher", "revoke", PUBLISHER, "--why", "its key was stolen", "--signer", key)
    refused = fleet.try_run("rollout", "start", "talker@1.2.0", "--sites", "*", "--name", "stolen")
    assert "its key was stolen" in refused.stderr
    assert (
        fleet.try_run("release", "push", str(fleet.folder / "release" / "release-1.2.0.yaml")).returncode != 0
    )
    fleet.until_runs(agent, "1.1.0")
    (view,) = json.loads(fleet.run("publisher", "list", "-o", "json"))
    assert view["revoked"]["why"] == "its key was stolen"
