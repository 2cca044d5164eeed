"""Two hosts of a site linked by what two applications have written down: a Modbus gateway and an office."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import ask
from tests.e2e.test_bus import TALK
from tests.unit.gateways.gateway_world import EXAMPLE, free_port, need

pytestmark = [pytest.mark.e2e, pytest.mark.broker, pytest.mark.timeout(300)]

SERVER = Path(__file__).resolve().parents[1] / "unit" / "gateways" / "modbus_server.py"
OFFICE = (
    TALK
    + """
came = []

def listen():
    command = ["mosquitto_sub", *access(), "-i", "office", "-q", "1", "-v", "-t", "modbus/press/heat"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            came.append(line.strip())

threading.Thread(target=listen, daemon=True).start()

class Handler(Answering):
    def do_GET(self):
        topic, _, text = urllib.parse.unquote(self.path[1:]).partition("=")
        if text:
            command = ["mosquitto_pub", *access(), "-t", topic, "-m", text, "-q", "1"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            self.answer(200 if done.returncode == 0 else 503, done.stderr)
        else:
            self.answer(200, ";".join(came))

serve(Handler)
"""
)
PROBES = {
    "startup": {"http": {"port": "http", "path": "/"}, "period": "100ms", "timeout": "2s", "failures": 200}
}


def office() -> dict[str, Any]:
    """Return the application that reads a register and writes it, on the other host."""
    component = {
        "name": "app",
        "bundle": {"files": [{"path": "app.py", "source": "office.py"}]},
        "command": ["python3", "${bundle}/app.py"],
        "ports": [{"name": "http"}],
        "probes": PROBES,
        "stop": {"grace": "1s"},
    }
    spec = {
        "version": "1.0.0",
        "topics": {"subscribe": ["modbus/press/heat"], "publish": ["modbus/press/+/set"]},
        "placement": {"requires": {"facts": {"custom.room": "office"}}},
        "components": [component],
    }
    return {"apiVersion": "skerry/v1", "kind": "Application", "metadata": {"name": "office"}, "spec": spec}


def gateway() -> dict[str, Any]:
    """Return the example as it is shipped, but run from its sources: to build its file takes an index of packages."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / "modbus-gateway.yaml").read_text(encoding="utf-8"))
    (component,) = document["spec"]["components"]
    component.pop("bundle")
    component["command"] = [
        sys.executable,
        "-m",
        "skerry_gateways",
        *component["command"][2:],
        "--period=0.2",
    ]
    component["env"] = {"PYTHONPATH": str(EXAMPLE / "app")}
    document["spec"]["placement"] = {"requires": {"facts": {"custom.room": "hall"}}}
    return document


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, as a host has."""
    folder = Path("/dev/shm") / f"skerry-bus-links-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def unit() -> Iterator[int]:
    """A Modbus unit in a process of its own; gives its port."""
    need("pymodbus")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield port
    process.kill()
    process.wait()


@pytest.mark.rule("BUS-1", "BUS-5")
def test_a_gateway_on_one_host_and_an_application_on_another_are_joined_by_topics(
    fleet: TestFleet, memory: Path, unit: int
) -> None:
    fleet.env["SKERRY_RUN_DIR"] = str(memory)
    registers = {"heat": {"kind": "holding", "address": 1, "type": "int16", "scale": 0.1, "writable": True}}
    press = {"name": "press", "modbus": {"host": "127.0.0.1", "port": unit, "registers": registers}}
    site = {"apiVersion": "skerry/v1", "kind": "Site", "metadata": {"name": "harbour"}}
    fleet.run("apply", "-f", "-", stdin=json.dumps({**site, "spec": {"bindings": [press]}}))
    hall = fleet.add_agent("harbour", "edge-1", {"custom.room": "hall"})
    desk = fleet.add_agent("harbour", "edge-2", {"custom.room": "office"})
    (fleet.folder / "office.py").write_text(OFFICE)
    for name, document in (("modbus-gateway", gateway()), ("office", office())):
        file = fleet.folder / f"{name}.yaml"
        file.write_text(json.dumps(document))
        fleet.run("release", "push", str(file))
        fleet.run("rollout", "start", f"{name}@1.0.0", "--sites", "*", "--name", name, "--soak", "300ms")

    def logs() -> str:
        return f"{hall.log.read_text()[-3000:]}\n---\n{desk.log.read_text()[-3000:]}"

    for agent, name in ((hall, "modbus-gateway"), (desk, "office")):
        fleet.until(lambda a=agent, n=name: a.application(n).get("phase") == "running", logs)  # type: ignore[misc]
    assert "office" not in str(hall.status()["observed"]["bus"]["applications"])

    def links(agent: AgentProcess) -> dict[str, str]:
        observed: dict[str, Any] = agent.status().get("observed") or {}
        bus: dict[str, Any] = observed.get("bus") or {}
        found: dict[str, str] = bus.get("links") or {}
        return found

    fleet.until(lambda: links(hall) == {"edge-2": ""} and links(desk) == {"edge-1": ""}, logs)

    def values() -> list[object]:
        lines = [line for line in ask(desk.endpoint("office", "app")).split(";") if line]
        return [json.loads(line.partition(" ")[2])["value"] for line in lines]

    def has_set(value: float) -> bool:
        ask(desk.endpoint("office", "app"), f"/modbus/press/heat/set={value}")
        return value in values()

    fleet.until(lambda: has_set(21.5), logs)
    ask(desk.endpoint("office", "app"), '/modbus/press/heat={"value":"beyond its pattern"}')
    joined = {(f["application"], f["topic"]): f["linked"] for f in fleet.get("get", "topics")}
    assert joined["office", "modbus/press/heat"] == ["modbus-gateway"]
    told = fleet.run("explain", "topics", "--site", "harbour")
    assert "over a link between hosts with modbus-gateway" in told
    fleet.until(
        lambda: (
            "From edge-1 to edge-2 the link is open" in fleet.run("explain", "topics", "--site", "harbour")
        )
    )

    fleet.hub.kill()
    fleet.until(lambda: has_set(-3.5), logs)
    desk.kill()
    desk.start()
    fleet.until(lambda: has_set(12.5), logs)
    assert "beyond its pattern" not in values()
