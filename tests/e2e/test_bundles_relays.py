"""A relay whose link is gone: hosts below it are updated by one bundle that is imported at the relay alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess, free_port
from skerry.testing.segmented import RELAY, RelayProcess
from tests.e2e.conftest import TestFleet
from tests.e2e.relay_fleet import logged

pytestmark = pytest.mark.e2e


SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {name: mill, labels: {region: north}}
spec: {reached_by: bundle, variables: {greeting: hello from mill}}
"""


class Gate:
    """A relay in front of one host of site mill."""

    def __init__(self, fleet: TestFleet) -> None:
        self.fleet = fleet
        address = f"127.0.0.1:{free_port()}"
        fleet.run(
            "apply",
            "-f",
            "-",
            stdin=RELAY.format(name="gate", address=address, upstreams="", cache="1GiB", queue="64MiB"),
        )
        self.process = RelayProcess("gate", fleet.folder / "gate", fleet.env, address)
        token = fleet.get("relay", "token", "gate")["token"]
        fleet.run("relay", "join", "-", "--data", str(self.process.data), stdin=token)
        self.process.start()
        fleet.run("apply", "-f", "-", stdin=SITE)
        self.agent = AgentProcess("saw", fleet.folder / "agents" / "saw", fleet.env, {})
        token = fleet.get("site", "token", "mill", "--via", "gate")["token"]
        fleet.run("agent", "join", "-", "--data", str(self.agent.data), "--name", "saw", stdin=token)
        fleet.agents["saw"] = self.agent
        self.agent.start()

    def cut_off(self) -> None:
        """Let the relay know no other upstream than an address where nobody is."""
        self.process.stop()
        file = self.process.data / "identity.json"
        place: dict[str, Any] = json.loads(file.read_bytes())
        nobody = f"https://127.0.0.1:{free_port()}"
        file.write_text(json.dumps({**place, "upstream": nobody, "upstreams": [nobody]}))
        self.process.start()

    def carry(self, version: str) -> dict[str, Any]:
        """Assign a release, and carry it to the relay; return what the relay says of it."""
        fleet = self.fleet
        fleet.push(version)
        name = fleet.roll_out(version)
        fleet.until(lambda: fleet.get("get", "sites")[0]["assignments"] == {"talker": f"talker@{version}"})
        file = fleet.folder / f"{name}.bundle"
        fleet.run("bundle", "export", "--site", "mill", "-o", str(file))
        arguments = ("relay", "import", str(file), "--data", str(self.process.data))
        assert fleet.get(*arguments, "--dry-run")["process"] == "was not asked"
        found: dict[str, Any] = fleet.get(*arguments)
        again = fleet.get(*arguments)
        assert (again["copied"], again["refused"]) == (0, {})
        return found

    def carry_back(self) -> dict[str, Any]:
        """Carry what waits at the relay to the hub; return what the hub says of it."""
        file = self.fleet.folder / "gate.reports"
        self.fleet.run("relay", "export-reports", "--data", str(self.process.data), "-o", str(file))
        found: dict[str, Any] = self.fleet.get("hub", "import-reports", str(file))
        assert found["refused"] == {}
        return found


@pytest.fixture
def gate(fleet: TestFleet) -> Iterator[Gate]:
    made = Gate(fleet)
    yield made
    made.process.stop()


@pytest.mark.rule("BUNDLE-5")
def test_hosts_below_a_relay_without_a_link_are_updated_by_a_bundle_at_the_relay(gate: Gate) -> None:
    fleet = gate.fleet
    fleet.until(lambda: gate.process.status().get("held", {}).get("mill"))
    gate.cut_off()
    assert gate.carry("1.0.0")["process"] == "took it"
    fleet.until_runs(gate.agent, "1.0.0")
    fleet.until(lambda: "release.proven" in logged(gate.agent))
    fleet.until(lambda: gate.process.status().get("queue", {}).get("reports", 0) > 0)
    assert gate.carry_back()["taken"] > 0
    gate.carry_back()
    kinds = [view["event"]["kind"] for view in fleet.get("get", "events", "--host", "saw", "--limit", "1000")]
    assert kinds.count("release.proven") == 1
