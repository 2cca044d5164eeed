"""A site's link budget with a real hub and a real agent: paced, counted over a kill, held back with a reason, told."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import ask

pytestmark = [pytest.mark.e2e, pytest.mark.delivery]

RATE = 512 << 10
BALLAST = 3 << 20
SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: harbour}}
spec:
  variables: {{greeting: hello}}
  {more}
"""


def apply(fleet: TestFleet, more: str = "") -> None:
    fleet.run("apply", "-f", "-", stdin=SITE.format(more=more))


def push_large(fleet: TestFleet, version: str) -> None:
    fleet.push(version, ballast={f"ballast-{version}.bin": random.Random(version).randbytes(BALLAST)})


def fetched(agent: AgentProcess) -> dict[str, Any]:
    return dict(agent.application("talker").get("fetch") or {})


def counted(agent: AgentProcess) -> int:
    """Return the bytes of today as they are on the agent's disk."""
    database = sqlite3.connect(f"file:{agent.data / 'agent.db'}?mode=ro", uri=True)
    try:
        row = database.execute("SELECT value FROM documents WHERE key = 'link_usage'").fetchone()
    finally:
        database.close()
    return int(json.loads(row[0])["day"]["used"]) if row else 0


def on_disk(agent: AgentProcess) -> int:
    """Return the bytes of the largest blob that is here, whole or in part."""
    return max(
        (path.stat().st_size for path in (agent.data / "blobs").rglob("*") if path.is_file()), default=0
    )


def until_held(fleet: TestFleet, agent: AgentProcess, words: str) -> str:
    def held() -> str:
        why = str(agent.application("talker").get("why", ""))
        return why if words in why else ""

    return fleet.until(held, lambda: str(agent.status()))


@pytest.mark.rule("LINK-2")
def test_a_release_comes_at_the_sites_rate_and_tells_how_far_it_is(fleet: TestFleet) -> None:
    apply(fleet, f"link: {{rate: {RATE // 1024}KiB/s, per_day: 1GiB}}")
    agent = fleet.add_agent("harbour", "edge")
    push_large(fleet, "1.0.0")
    fleet.roll_out("1.0.0")

    def beginning() -> bool:
        return on_disk(agent) > 256 << 10

    def seen(condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return fleet.until(
            lambda: view if condition(view := fetched(agent)) else {}, lambda: str(agent.status())
        )

    fleet.until(beginning)
    began, first = time.monotonic(), on_disk(agent)
    moving = seen(lambda view: view.get("rate", 0) > 0 and view.get("done_bytes", 0) > 0)
    assert moving["total_bytes"] >= BALLAST
    assert RATE * 0.5 <= moving["rate"] <= RATE * 1.3
    assert moving["left_s"] <= 2 + (moving["total_bytes"] - moving["done_bytes"]) / (RATE * 0.5)

    def said() -> str:
        text = fleet.run("describe", "host", "edge")
        return text if " MiB (" in text and "fetched, " in text else ""

    assert "to go" in fleet.until(said)
    fleet.until_runs(agent, "1.0.0")
    # From what was there until all of it was: no faster than the rate, whatever else this machine does.
    assert time.monotonic() - began >= 0.8 * (BALLAST - first) / RATE
    assert fetched(agent) == {}
    agent.stop()
    assert BALLAST <= counted(agent) <= BALLAST * 1.1


@pytest.mark.rule("LINK-3")
def test_a_kill_in_the_middle_loses_seconds_of_the_count_and_fetches_nothing_twice(fleet: TestFleet) -> None:
    apply(fleet, f"link: {{rate: {RATE // 1024}KiB/s, per_day: 1GiB}}")
    agent = fleet.add_agent("harbour", "edge")
    push_large(fleet, "1.0.0")
    fleet.roll_out("1.0.0")

    def has(size: int) -> None:
        fleet.until(lambda: on_disk(agent) >= size)

    for part in (1, 2):
        has(part * BALLAST // 3)
        agent.kill()
        assert counted(agent) >= on_disk(agent) - 4 * RATE
        agent.start()
    fleet.until_runs(agent, "1.0.0")
    agent.stop()
    # What was on its way in the kernel's buffers may come again; at this rate they hold about a second.
    assert BALLAST - 8 * RATE <= counted(agent) <= BALLAST + 4 * RATE


@pytest.mark.rule("LINK-1")
def test_a_used_up_day_holds_a_release_back_and_says_so_until_the_budget_is_another(fleet: TestFleet) -> None:
    apply(fleet, "time_zone: Europe/Zurich\n  link: {per_day: 1MiB}")
    agent = fleet.add_agent("harbour", "edge")
    push_large(fleet, "1.0.0")
    name = fleet.roll_out("1.0.0")
    why = until_held(fleet, agent, "today, goes on at")
    assert why.endswith("00:00 (Europe/Zurich)")
    assert on_disk(agent) <= 1 << 20
    assert why in fleet.run("describe", "host", "edge") or fleet.until(
        lambda: "goes on at" in fleet.run("describe", "host", "edge")
    )
    assert fleet.until(lambda: "goes on at" in str(fleet.get("get", "rollouts", name)))
    assert "nothing flows now" in fleet.run("agent", "status", "--data", str(agent.data))

    agent.stop()
    agent.start()
    until_held(fleet, agent, "today, goes on at")
    assert on_disk(agent) <= 1 << 20, "a restart is no new day"

    apply(fleet)
    fleet.until_runs(agent, "1.0.0")


def test_an_update_is_made_ready_ahead_of_the_window_in_which_it_switches(fleet: TestFleet) -> None:
    # A minute a year, some 180 days from now: it does not open while this test runs.
    month = (time.gmtime().tm_mon + 5) % 12 + 1
    closed = f"switch_windows: [{{cron: 0 0 1 {month} *, duration: 1m}}]"
    apply(fleet, closed)
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    said = fleet.until_runs(agent, "1.0.0")

    push_large(fleet, "2.0.0")
    name = fleet.roll_out("2.0.0")
    until_held(fleet, agent, "ready; waiting for the site's window at")
    assert on_disk(agent) >= BALLAST, "all of it is here"
    assert ask(agent.endpoint("talker", "mouth")) == said, "and the old one runs on, untouched"

    apply(fleet)
    fleet.run("rollout", "watch", name)
    fleet.until_runs(agent, "2.0.0")
