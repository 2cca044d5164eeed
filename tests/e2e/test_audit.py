"""A hub whose database is changed behind its back is found out by who checks its audit."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.trust]


def change(database: Path, *statements: str) -> None:
    """Change a hub's database in one step, as whoever can write to its disk can."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.rule("AUDIT-2")
def test_a_hub_whose_database_was_changed_is_found_out(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    fleet.push("1.0.0")
    fleet.run("rollout", "watch", fleet.roll_out("1.0.0"))
    fleet.until_runs(agent, "1.0.0")
    fleet.until(lambda: "Health:        ok" in fleet.try_run("health", "--site", "harbour").stdout)
    assert "each follows on the one before" in fleet.run("audit", "verify")
    said = fleet.run("audit", "list")
    for action in ("host.enroll", "release.create", "rollout.decide"):
        assert action in said
    log = fleet.run("events", "--since", "1h")
    assert "agent.started" in log and "by host:edge" in log
    events = [json.loads(line) for line in fleet.run("events", "--host", "edge", "-o", "json").splitlines()]
    numbers = [entry["number"] for entry in events if entry["source"] == "host" and "number" in entry]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "each event of the host once, and no gap"
    assert not [entry for entry in events if entry["kind"].startswith("chain.")]
    anchor = fleet.folder / "head.json"
    anchor.write_text(fleet.run("audit", "head"))
    fleet.run("token", "create", "later", "--role", "viewer")
    assert "1 anchor found as kept" in fleet.run("audit", "verify", "--anchor", str(anchor))

    database = fleet.hub.data / "hub.db"
    change(database, "UPDATE audits SET who = 'somebody' WHERE action = 'host.enroll'")
    assert "altered: " in fleet.run("audit", "verify", code=1)
    change(database, "UPDATE audits SET who = 'host:edge' WHERE action = 'host.enroll'")
    fleet.run("audit", "verify")

    # Whoever moves the note of the newest entry as well is found with the anchor alone.
    kept = int(json.loads(anchor.read_text())["number"])
    before = f"number = {kept - 1}, digest = (SELECT previous FROM audits WHERE id = {kept})"
    change(
        database, f"UPDATE chains SET {before} WHERE name = 'audit'", f"DELETE FROM audits WHERE id >= {kept}"
    )
    fleet.run("audit", "verify")
    assert "truncated: " in fleet.run("audit", "verify", "--anchor", str(anchor), code=1)
