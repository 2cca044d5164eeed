"""A host that was cut off for a month hands up what it measured, and the hub answers with its coverage and age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from skerry.adapters.sqlite_telemetry_buffer import SqliteTelemetryBuffer
from skerry.agent.recording import Recorder
from skerry.telemetry.naming import clean_series
from skerry.telemetry.windows import Counter
from tests.e2e.conftest import TestFleet

pytestmark = [pytest.mark.e2e, pytest.mark.telemetry]

CALLS = clean_series("calls", [("app", "talker"), ("release", "talker@1.0.0")], "counter")
DAYS = 30


@pytest.mark.rule("TELEMETRY-1")
@pytest.mark.rule("TELEMETRY-3")
def test_a_month_without_a_link_is_told_and_asked_for_with_its_coverage(fleet: TestFleet) -> None:
    fleet.make_sites("harbour", "airport")
    agent = fleet.add_agent("harbour", "edge")
    agent.stop()
    measured = measure_a_month(agent.data / "telemetry.db")
    agent.start()

    def told() -> bool:
        found = fleet.get("metrics", "list")
        return bool(found) and total(fleet) == measured

    fleet.until(told, lambda: f"{fleet.try_run('metrics', 'hosts')}\n{agent.log.read_text()[-3000:]}")
    agent.kill()
    agent.start()
    answer = fleet.get("metrics", "query", 'calls_total{app="talker"}', "--by", "site", "--since", "31d")
    assert [figure["group"] for figure in answer["figures"]] == [{"site": "harbour"}]
    assert answer["figures"][0]["samples"] == DAYS * 24 * 60 / 10
    coverage = fleet.get("metrics", "query", "calls_total", "--since", "31d")["coverage"]
    assert (coverage["sites"], coverage["of"], coverage["stale"]) == (1, 2, 1)
    shown = fleet.run("metrics", "query", "calls_total", "--by", "site", "--since", "31d")
    assert "coverage: 1 of 2 sites, 1 older than 1 h" in shown
    (host,) = fleet.get("metrics", "hosts")
    assert (host["host"], host["missing_batches"], host["losses"]["dropped"]) == ("edge", 0, {})
    assert "coverage:" in fleet.run("top", "sites")
    refused = fleet.try_run("metrics", "query", "nothing_p95")
    assert (refused.returncode, "no series is called" in refused.stderr) == (2, True)


def total(fleet: TestFleet) -> float:
    """Return what the hub counted."""
    answer = fleet.get("metrics", "query", "calls_total", "--since", "31d")
    return float(sum(figure["value"] for figure in answer["figures"]))


def measure_a_month(file: Path) -> float:
    """Fill a host's buffer as its agent would have done while there was no link; return what it counted."""
    at = datetime.now(UTC) - timedelta(days=DAYS)
    recorder = Recorder(SqliteTelemetryBuffer.open(file), lambda: at)
    counted = 0.0
    for number in range(DAYS * 24 * 60 // 10):
        recorder.record({CALLS: Counter(1, float(number % 7))})
        counted += number % 7
        at += timedelta(minutes=10)
        if number % 36 == 0:
            recorder.flush()
    recorder.flush()
    recorder.close()
    return counted
