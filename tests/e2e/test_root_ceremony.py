"""Offline keys moved off a hub, and a hub's own keys replaced, while hosts run and follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.client.profile import load_profile
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import write_release
from tests.e2e.test_doors import as_token

pytestmark = [pytest.mark.e2e, pytest.mark.trust]


def make_root(fleet: TestFleet, version: int, *how: str) -> Path:
    """Make the next root; return its file."""
    file = fleet.folder / f"{version}.root.json"
    fleet.run("root", "rotate", *how, "--out", str(file))
    return file


def sign(fleet: TestFleet, file: Path, *keys: Path) -> None:
    fleet.run("root", "sign", str(file), *(part for key in keys for part in ("--signer", str(key))))


@pytest.mark.slow
def test_a_host_follows_new_offline_keys_and_then_new_keys_of_the_hub(fleet: TestFleet) -> None:
    assert load_profile(fleet.folder / "config.json").contexts["default"].metadata_root
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "crane")
    fleet.push("1.0.0")
    fleet.roll_out("1.0.0")
    fleet.until_runs(agent, "1.0.0")

    offline = fleet.hub.data / "offline-keys"
    keys = [fleet.folder / f"{name}.pem" for name in ("ann", "bob", "targets")]
    for key in keys:
        fleet.run("publisher", "key", str(key))
    shown = fleet.get("root", "show")["keys"]
    second = make_root(
        fleet, 2, "--add-key", f"{keys[0]}.pub", "--add-key", f"{keys[1]}.pub", "--threshold", "2",
        "--remove-key", shown["root"][0][:12], "--add-targets-key", f"{keys[2]}.pub",
        "--remove-targets-key", shown["targets"][0][:12],
    )  # fmt: skip
    targets = fleet.folder / "targets.json"
    fleet.run("root", "targets", "--root", str(second), "--out", str(targets))
    sign(fleet, second, offline / "root.pem", keys[0], keys[1])
    sign(fleet, targets, keys[2])
    fleet.run("root", "publish", str(second), str(targets))
    (offline / "root.pem").unlink()
    (offline / "targets.pem").unlink()

    made = fleet.folder / "hub-keys.json"
    fleet.run("hub", "keys", "new", "--data", str(fleet.hub.data), "--out", str(made))
    third = make_root(fleet, 3, "--hub-keys", str(made))
    sign(fleet, third, keys[0], keys[1])
    fleet.hub.stop()
    fleet.run("hub", "keys", "install", str(third), "--data", str(fleet.hub.data))
    fleet.hub.start()

    fleet.push("1.1.0")
    found = fleet.get("release", "verify", "talker@1.1.0")
    assert (found["vouched"], found["steps"][0]["version"]) == (True, 3)
    fleet.roll_out("1.1.0")
    fleet.until_runs(agent, "1.1.0")


def test_a_builds_token_publishes_and_says_nothing_of_who_may(fleet: TestFleet) -> None:
    fleet.add_publisher()
    token = fleet.get("token", "create", "ci", "--role", "publisher")["secret"]
    release = write_release(fleet.folder / "release", "1.0.0")
    assert as_token(fleet, token, "release", "push", str(release))[0] == 0
    assert as_token(fleet, token, "release", "verify", "talker@1.0.0")[0] == 0
    targets = str(fleet.hub.data / "offline-keys" / "targets.pem")
    code, error = as_token(fleet, token, "publisher", "add", "beta", "--signer", targets)
    assert (code, "for admins" in error) == (77, True)
    viewer = fleet.get("token", "create", "looker", "--role", "viewer")["secret"]
    revoke = ("release", "revoke", "talker@1.0.0", "--why", "wrong digits")
    assert as_token(fleet, viewer, "release", "verify", "talker@1.0.0")[0] == 0
    assert as_token(fleet, viewer, *revoke)[0] == 77
    assert as_token(fleet, token, *revoke)[0] == 0
    assert fleet.get("release", "show", "talker@1.0.0")["revoked"]["why"] == "wrong digits"
