"""A preview on a real hub says before a rollout what hosts then choose by themselves."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import TestFleet

pytestmark = pytest.mark.e2e


def test_what_is_previewed_is_what_hosts_then_run(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    fleet.make_site("airport", region="south")
    big = fleet.add_agent("harbour", "edge-big")
    small = fleet.add_agent("airport", "edge-small", {"memory": "512MiB"})
    fleet.push("1.0.0")
    # Facts arrive with the first report.
    fleet.until(lambda: fleet.get("release", "preview", "talker", "--strict")["matched"] == 2)
    found = fleet.get("release", "preview", "talker@1.0.0")
    told = {host: list(c["models"].values()) for c in found["combinations"] for host in c["examples"]}
    assert told == {"edge-big": ["large"], "edge-small": ["small"]}
    assert fleet.get("release", "preview", "talker", "-l", "region=south")["hosts"] == 1
    before = fleet.run("explain", "variant", "talker", "--host", "edge-small")
    assert "has not reported an application talker" in before
    assert "large: needs memory >= 1 GiB, has 512 MiB" in before
    fleet.roll_out("1.0.0")
    assert " large " in fleet.until_runs(big, "1.0.0")
    assert " small " in fleet.until_runs(small, "1.0.0")
    after = fleet.run("explain", "variant", "talker", "--host", "edge-small")
    assert "it uses the variant small" in after
    assert "would be chosen now" not in after
    assert "every host" in fleet.run("explain", "placement", "talker", "--site", "harbour")
