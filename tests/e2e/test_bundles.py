"""A site with no link at all: updated twice by bundles, and its reports carried back, by the command line alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess, free_port
from tests.e2e.conftest import TestFleet

pytestmark = pytest.mark.e2e

SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {name: mine}
spec: {reached_by: bundle, variables: {greeting: hello from below}}
"""


def cut_off(agent: AgentProcess) -> None:
    """Let a host that has joined know no other upstream than an address where nobody is."""
    file = agent.data / "identity.json"
    place: dict[str, Any] = json.loads(file.read_bytes())
    nobody = f"https://127.0.0.1:{free_port()}"
    place |= {"upstream": nobody} if "upstream" in place else {}
    place |= {"upstreams": [nobody]} if "upstreams" in place else {}
    file.write_text(json.dumps(place))


def air_gapped(fleet: TestFleet) -> AgentProcess:
    """Return a host that joined on a bench, and was carried to where there is no link before it ever ran."""
    fleet.run("apply", "-f", "-", stdin=SITE)
    agent = AgentProcess("edge", fleet.folder / "agents" / "edge", fleet.env, {})
    token = fleet.get("site", "token", "mine")["token"]
    fleet.run("agent", "join", "-", "--data", str(agent.data), "--name", "edge", stdin=token)
    cut_off(agent)
    fleet.agents["edge"] = agent
    return agent.start()


def assigned(fleet: TestFleet) -> dict[str, str]:
    (site,) = fleet.get("get", "sites")
    found: dict[str, str] = site["assignments"]
    return found


def carry(fleet: TestFleet, agent: AgentProcess, file: Path, *options: str) -> dict[str, Any]:
    """Carry a bundle to the host; return what it says of it."""
    fleet.run("bundle", "export", "--site", "mine", *options, "-o", str(file))
    seen = fleet.get("bundle", "inspect", str(file))
    assert list(seen["manifest"]["sites"]) == ["mine"]
    dry: dict[str, Any] = fleet.get("agent", "import", str(file), "--data", str(agent.data), "--dry-run")
    assert (dry["agent"], dry["generation"]) == (
        "was not asked",
        seen["manifest"]["sites"]["mine"]["generation"],
    )
    found: dict[str, Any] = fleet.get("agent", "import", str(file), "--data", str(agent.data))
    return found


def carry_back(fleet: TestFleet, agent: AgentProcess) -> dict[str, Any]:
    """Carry the host's reports to the hub; return what it says of them."""
    file = fleet.folder / "edge.reports"
    fleet.run("agent", "export-reports", "--data", str(agent.data), "-o", str(file))
    found: dict[str, Any] = fleet.get("hub", "import-reports", str(file))
    again: dict[str, Any] = fleet.get("hub", "import-reports", str(file))
    assert again["taken"] == 0, "a second time changes nothing"
    assert [host["acknowledged"] for host in again["hosts"]] == [
        host["acknowledged"] for host in found["hosts"]
    ]
    return found


def events(fleet: TestFleet) -> list[str]:
    found = fleet.get("get", "events", "--limit", "1000")
    return [f"{one['event']['kind']} {one['event']['message']}" for one in reversed(found)]


@pytest.mark.rule("BUNDLE-1")
@pytest.mark.rule("BUNDLE-4")
def test_a_site_without_a_link_is_updated_twice_by_bundles_and_tells_of_it(fleet: TestFleet) -> None:
    agent = air_gapped(fleet)
    ballast = os.urandom(300_000)
    fleet.push("1.0.0", ballast={"weights.bin": ballast})
    first = fleet.roll_out("1.0.0")
    # Its wave offers it to the site although nothing is heard of it.
    fleet.until(lambda: assigned(fleet) == {"talker": "talker@1.0.0"})

    one = carry(fleet, agent, fleet.folder / "one.bundle")
    assert (one["agent"], one["fresh"], one["doubts"]) == ("took it", True, {})
    fleet.until_runs(agent, "1.0.0")
    assert fleet.rollout_state(first) == "running", "before its report nobody knows what became of it"
    carry_back(fleet, agent)
    fleet.until(lambda: fleet.rollout_state(first) == "succeeded")
    assert fleet.get("get", "hosts")[0]["presence"] != "never"

    ballast = ballast[:150_000] + b"another" + ballast[150_000:]
    fleet.push("1.1.0", ballast={"weights.bin": ballast})
    second = fleet.roll_out("1.1.0")
    fleet.until(lambda: assigned(fleet) == {"talker": "talker@1.1.0"})
    agent.stop()
    two = carry(fleet, agent, fleet.folder / "two.bundle", "--since-bundle", str(fleet.folder / "one.bundle"))
    assert (two["agent"], two["fresh"]) == ("does not run", True)
    assert two["copied_bytes"] < 100_000, "what the host holds already is not carried once more"
    agent.start()
    fleet.until_runs(agent, "1.1.0")
    assert carry_back(fleet, agent)["taken"] >= 1
    fleet.until(lambda: fleet.rollout_state(second) == "succeeded")

    taken = [one for one in events(fleet) if one.startswith("bundle.taken")]
    assert taken == [
        f"bundle.taken generation {found['generation']} came in a bundle" for found in (one, two)
    ]
    old = fleet.try_run("agent", "import", str(fleet.folder / "one.bundle"), "--data", str(agent.data))
    assert old.returncode == 76 and "older" in old.stderr
    assert fleet.until_runs(agent, "1.1.0")
