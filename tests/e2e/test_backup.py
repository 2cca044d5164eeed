"""A real hub is backed up while it serves, lost, and restored; its hosts go on, and nothing goes back by itself."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.fleet import PUBLISHER, AgentProcess
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

PASSPHRASE = "correct horse battery staple"


class Keeper:
    """A fleet whose hub is backed up, lost and restored."""

    def __init__(self, fleet: TestFleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.file = folder / "hub.backup"

    def back_up(self) -> None:
        self.fleet.run(
            "hub",
            "backup",
            str(self.file),
            "--data",
            str(self.fleet.hub.data),
            "--passphrase-stdin",
            stdin=PASSPHRASE,
        )

    def lose_and_restore(self) -> None:
        """Kill the hub as a power cut would, restore the backup elsewhere, and serve that at the same address."""
        self.fleet.hub.kill()
        data = self.folder / "restored"
        arguments = ["hub", "restore", str(self.file), "--data", str(data), "--passphrase-stdin"]
        done = self.fleet.try_run(*arguments, "-o", "json", stdin=PASSPHRASE)
        assert done.returncode == 0, done.stderr
        assert "LOOK THROUGH THE API TOKENS" in done.stderr
        assert PASSPHRASE not in done.stdout + done.stderr
        self.fleet.hub.data = data
        self.fleet.hub.start()

    def site(self) -> dict[str, Any]:
        found: dict[str, Any] = self.fleet.get("describe", "site", "zurich")["site"]
        return found

    def host_generation(self) -> int:
        return int(self.fleet.get("describe", "host", "press")["host"]["generation_held"])

    def desired(self, agent: AgentProcess) -> int:
        observed: dict[str, Any] = agent.status().get("observed") or {}
        return int(observed.get("generation", 0))

    def actions(self) -> list[str]:
        database = sqlite3.connect(f"{(self.fleet.hub.data / 'hub.db').as_uri()}?mode=ro", uri=True)
        with contextlib.closing(database):
            return [str(action) for (action,) in database.execute("SELECT action FROM audits")]


@pytest.fixture
def keeper(fleet: TestFleet, tmp_path: Path) -> Keeper:
    return Keeper(fleet, tmp_path)


def begin(keeper: Keeper) -> AgentProcess:
    """Run release 1.0.0 on a host."""
    fleet = keeper.fleet
    fleet.make_site("zurich")
    agent = fleet.add_agent("zurich", "press")
    fleet.push("1.0.0")
    fleet.roll_out("1.0.0")
    fleet.until_runs(agent, "1.0.0")
    fleet.until(lambda: fleet.rollout_state("to-1-0-0") == "succeeded")
    return agent


def test_a_restored_hub_is_found_by_its_hosts_and_rolls_out_as_before(keeper: Keeper) -> None:
    fleet = keeper.fleet
    agent = begin(keeper)
    keeper.back_up()
    held = keeper.desired(agent)
    answer = fleet.until_runs(agent, "1.0.0")
    keeper.lose_and_restore()
    fleet.until(lambda: keeper.site()["presence"] == "online")
    assert keeper.site()["held"] is None
    assert fleet.until_runs(agent, "1.0.0") == answer, "nothing was restarted"
    fleet.push("1.1.0")
    fleet.roll_out("1.1.0")
    fleet.until_runs(agent, "1.1.0")
    fleet.until(lambda: fleet.rollout_state("to-1-1-0") == "succeeded")
    assert keeper.desired(agent) > held
    findings = fleet.get("hub", "doctor", "--data", str(fleet.hub.data))["findings"]
    assert {finding["level"] for finding in findings} <= {"ok", "warn"}


@pytest.mark.rule("BACKUP-2")
def test_an_older_backup_takes_no_site_back_and_what_runs_there_can_be_adopted(keeper: Keeper) -> None:
    fleet = keeper.fleet
    agent = begin(keeper)
    keeper.back_up()
    fleet.push("1.1.0")
    fleet.roll_out("1.1.0")
    answer = fleet.until_runs(agent, "1.1.0")
    ahead = keeper.desired(agent)
    keeper.lose_and_restore()
    held = fleet.until(lambda: keeper.site()["held"], lambda: fleet.hub.log.read_text()[-3000:])
    assert held["generation_seen"] == ahead > held["generation_known"]
    assert "skerry site adopt zurich" in fleet.run("describe", "site", "zurich")
    assert "site.held" in fleet.hub.log.read_text()

    # Whatever is changed at the hub now, the site hears nothing of it.
    fleet.make_site("zurich", region="south")
    fleet.roll_out("1.0.0", name="again")
    fleet.until(lambda: "zurich" in fleet.get("get", "rollouts", "again")["sites"])
    assert keeper.site()["generation"] == held["generation_known"]
    assert fleet.until_runs(agent, "1.1.0") == answer

    # The host is asked to tell what it runs; the release itself has to be pushed again.
    fleet.until(lambda: not keeper.site()["held"]["untold"])
    refused = fleet.try_run("site", "adopt", "zurich")
    assert refused.returncode == 4
    assert "talker@1.1.0" in refused.stderr
    fleet.run("publisher", "resend", PUBLISHER)  # what the publisher has signed since the backup
    fleet.push("1.1.0")
    adopted = fleet.get("site", "adopt", "zurich")
    assert adopted["generation"] > ahead
    assert adopted["assignments"] == {"talker": "talker@1.1.0"}
    assert adopted["left_rollouts"] == ["again"]
    fleet.until(lambda: keeper.desired(agent) == adopted["generation"])
    assert fleet.until_runs(agent, "1.1.0") == answer, "nothing was restarted"
    assert keeper.site()["held"] is None
    assert {"site.hold", "site.adopt", "hub.restore"} <= set(keeper.actions())


@pytest.mark.rule("BACKUP-2")
def test_what_the_hub_says_is_issued_above_what_was_seen_once_a_person_says_so(keeper: Keeper) -> None:
    fleet = keeper.fleet
    agent = begin(keeper)
    keeper.back_up()
    fleet.push("1.1.0")
    fleet.roll_out("1.1.0")
    fleet.until_runs(agent, "1.1.0")
    ahead = keeper.desired(agent)
    keeper.lose_and_restore()
    fleet.until(lambda: keeper.site()["held"])
    fleet.hub.stop()
    fleet.hub.start()
    assert keeper.site()["held"]["generation_seen"] == ahead, "a hold outlives the hub"
    reissued = fleet.get("site", "reissue", "zurich")
    assert reissued["generation"] > ahead
    fleet.until_runs(agent, "1.0.0")
    fleet.until(lambda: keeper.host_generation() == reissued["generation"])
    assert fleet.try_run("site", "reissue", "zurich").returncode == 5
