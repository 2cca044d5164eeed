"""Releases come as deltas: made by a real hub in processes of its own, asked for and applied by real agents."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.delivery]

SIZE = 4 << 20
SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: harbour}}
spec: {{variables: {{greeting: hi}}, {more}}}
"""


def apply(fleet: TestFleet, more: str = "") -> None:
    fleet.run("apply", "-f", "-", stdin=SITE.format(more=more))


def content(version: int) -> bytes:
    """Return what changes in some places from version to version, and packs not at all."""
    made = bytearray(random.Random(1).randbytes(SIZE))
    for number in range(1, version + 1):
        at = number * 300_000
        made[at : at + 5000] = random.Random(1000 + number).randbytes(6000)
    return bytes(made)


def push(fleet: TestFleet, version: int) -> None:
    fleet.push(f"1.{version}.0", ballast={"weights.bin": content(version)})


def events(fleet: TestFleet, kind: str) -> list[str]:
    listed: list[dict[str, Any]] = fleet.get("get", "events", "--limit", "500")
    return [event["event"]["message"] for event in listed if event["event"]["kind"] == kind]


def bring(fleet: TestFleet, agent: AgentProcess, version: int) -> None:
    fleet.roll_out(f"1.{version}.0")
    fleet.until_runs(agent, f"1.{version}.0")


def test_two_releases_in_a_row_come_as_deltas_and_say_what_they_saved(fleet: TestFleet) -> None:
    apply(fleet)
    agent = fleet.add_agent("harbour", "edge")
    push(fleet, 0)
    bring(fleet, agent, 0)
    apply(fleet, "link: {rate: 256KiB/s, per_day: 1GiB}")
    for version in (1, 2):
        push(fleet, version)
        bring(fleet, agent, version)
    said = fleet.until(lambda: found if len(found := events(fleet, "release.fetched")) >= 3 else [])
    assert sum("1 by delta, in place of 4.0 MiB" in message for message in said) == 2, said
    assert (agent.data / "blobs").is_dir()
    assert not list((agent.data / "blobs" / "partial").iterdir())


def test_what_changed_and_what_it_costs_is_told_before_anything_moves(fleet: TestFleet) -> None:
    apply(fleet, "link: {rate: 16KiB/s}")
    agent = fleet.add_agent("harbour", "edge")
    push(fleet, 0)
    fleet.run("apply", "-f", "-", stdin=SITE.format(more="link: {rate: unlimited}"))
    bring(fleet, agent, 0)
    apply(fleet, "link: {rate: 16KiB/s}")
    push(fleet, 1)
    known = fleet.get("rollout", "preview", "talker@1.1.0", "--sites", "*")["traffic"]
    assert known["size_bytes"] == known["full_bytes"] >= SIZE

    diff = fleet.get("release", "diff", "talker@1.0.0", "talker@1.1.0")
    (weights,) = [file for file in diff["files"] if file["path"] == "weights.bin"]
    assert (weights["owner"], weights["change"]) == ("bundle mouth", "changed")
    assert weights["delta_bytes"] < 20_000 < SIZE < weights["size_bytes"]
    assert weights["compressed_bytes"] == weights["size_bytes"], "random bytes do not pack"
    assert diff["pending"] == 0
    assert {"path": "application.spec.version", "before": "1.0.0", "after": "1.1.0"} in diff["fields"]
    text = fleet.run("release", "diff", "talker@1.0.0", "talker@1.1.0")
    assert "bundle mouth" in text and "weights.bin" in text and "changed" in text

    assert "bundles/mouth/weights.bin (4.0 MiB): by delta from what it replaces, " in (
        said := fleet.run("explain", "delivery", "talker@1.1.0", "--host", "edge")
    ), said
    assert "compressed it would take 4.0 MiB" in said

    traffic = fleet.get("rollout", "preview", "talker@1.1.0", "--sites", "*", "--make")["traffic"]
    (site,) = traffic["sites"]
    assert site["site"] == "harbour" and site["hosts"] == 1
    assert site["full_bytes"] > SIZE > 50_000 > site["size_bytes"]
    assert 0.3 <= site["duration_s"] <= 3.0
    assert "in place of 4.0 MiB" in fleet.run("rollout", "preview", "talker@1.1.0", "--sites", "*")


def test_a_rollout_that_begins_later_has_its_files_fetched_ahead(fleet: TestFleet) -> None:
    apply(fleet)
    agent = fleet.add_agent("harbour", "edge")
    push(fleet, 0)
    bring(fleet, agent, 0)
    push(fleet, 1)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    gate = ("--soak", "300ms", "--deadline", "20s")
    start = ("rollout", "start", "talker@1.1.0", "--sites", "*", "--at", later, *gate)
    fleet.run(*start, "--name", "patient")
    fleet.run(*start, "--name", "eager", "--prefetch")

    def ahead() -> dict[str, str]:
        observed: dict[str, Any] = agent.status().get("observed") or {}
        found: dict[str, str] = observed.get("ahead") or {}
        return found if found.get("talker@1.1.0") == "fetched" else {}

    fleet.until(ahead, lambda: str(agent.status()))
    fleet.until(lambda: "talker@1.1.0: fetched" in fleet.run("describe", "host", "edge"))
    assert agent.application("talker")["release"] == "talker@1.0.0"
    assert fleet.rollout_state("eager") == "running"
    assert "begins at" in fleet.get("get", "rollouts", "eager")["why"]
    fleet.hub.stop()
    fleet.hub.start()
    bring(fleet, agent, 1)
    came = events(fleet, "release.fetched")
    assert sum("talker@1.1.0" in message for message in came) == 1, came
