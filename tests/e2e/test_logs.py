"""Logs of several hosts: those that are there answer, also through a relay, and one that is away on its return."""

from __future__ import annotations

import contextlib
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.fleet import SKERRY
from tests.e2e.relay_fleet import RelayFleet, url_of

pytestmark = [pytest.mark.e2e, pytest.mark.telemetry]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RelayFleet]:
    with RelayFleet(tmp_path) as made:
        made.start()
        yield made


@pytest.mark.rule("LOG-1")
@pytest.mark.rule("LOG-4")
def test_hosts_answer_through_a_relay_and_one_that_is_away_on_its_return(fleet: RelayFleet) -> None:
    fleet.make_sites("harbour", "quarry")
    relay = fleet.add_relay("l3")
    near = fleet.add_agent("harbour", "near")
    far = fleet.add_agent_by("quarry", "far", [url_of(relay)])
    away = fleet.add_agent("harbour", "away")
    fleet.push("1.0.0")
    fleet.roll_out("1.0.0")
    for agent in (near, far, away):
        fleet.until_runs(agent, "1.0.0")
    away.stop()

    with (fleet.folder / "said").open("w") as said:
        asked = subprocess.Popen(
            [*SKERRY, "logs", "talker", "--grep", "mood (well|bad)", "--wait", "1h"],
            env=fleet.env,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    try:
        fleet.until(
            lambda: "2 of 3 hosts answered" in (fleet.folder / "said").read_text(),
            lambda: (
                f"{fleet.run('logs', '--open')}\n{near.log.read_text()[-3000:]}\n{far.log.read_text()[-3000:]}"
            ),
        )
        assert asked.poll() is None
        (question,) = fleet.get("logs", "--open")
        away.start()
        out, _ = asked.communicate(timeout=60)
    finally:
        asked.kill()
        asked.wait()
    assert asked.returncode == 0, (fleet.folder / "said").read_text()
    assert "3 of 3 hosts answered" in (fleet.folder / "said").read_text()
    hosts = {line.split()[1].partition("/")[0] for line in out.splitlines() if "mood well" in line}
    assert hosts == {"near", "far", "away"}
    again = fleet.get("logs", "--read", question["id"])
    assert {line["host"] for line in again["lines"]} == hosts
    crash_and_agent(fleet, fleet.agents["far"].endpoint("talker", "mouth"))


def crash_and_agent(fleet: RelayFleet, address: str) -> None:
    """The component behind the relay crashes; the hub hears of it unasked, and the agent's own log says so."""
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://{address}/crash", timeout=10)

    def crashes() -> list[dict[str, Any]]:
        return list(fleet.get("logs", "talker", "--crashes", "--host", "far"))

    (view,) = fleet.until(crashes)
    assert (view["crash"]["kind"], view["crash"]["why"]) == ("ended", "exit code 9")
    assert view["crash"]["tail"][-1]["message"].startswith("mood well")
    assert "ended: exit code 9" in fleet.run("logs", "--crashes")
    found = fleet.get("logs", "--agent", "--host", "far", "--grep", "component.ended")
    assert [line["record"]["message"] for line in found["lines"]] == ["component.ended"]
    refused = fleet.try_run("logs", "talker", "--grep", "(a")
    assert (refused.returncode, "not a regular expression" in refused.stderr) == (2, True)
