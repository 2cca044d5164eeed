"""The production line of the tutorial, with real components: it works with the hub, and by itself after a power cut.

Independent clients look at each interface: of OPC UA and Modbus (`plant.py`), curl, openssl and mosquitto's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.envoy_proxy import find_program
from skerry.testing.fleet import free_port
from skerry.testing.processes import processes_of
from skerry.testing.waiting import eventually_sync
from tests.e2e.releases import ask
from tests.e2e.tutorials import ROOT, Reader, commands

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.envoy,
    pytest.mark.broker,
    pytest.mark.timeout(600),
]

PAGE = ROOT / "docs" / "tutorials" / "production-line.md"
PLANT = ROOT / "examples" / "line" / "plant.py"
LINE = "examples/line/line.yaml"
# Ports of the page: others are taken here.
PORTS = ("4840", "5020", "8090", "9443", "9080")
KINDS = ("camera", "modbus", "opcua")
LIMIT_S = 180.0


class Line(Reader):
    """Follows the page, and looks at the line as its neighbours do."""

    def __init__(self, folder: Path, memory: Path) -> None:
        super().__init__(folder, env={"SKERRY_RUN_DIR": str(memory)})
        self.memory = memory
        self._plant: subprocess.Popen[bytes] | None = None
        self.ports = {port: free_port() for port in PORTS}
        (folder / "line.yaml").write_text(self.here((ROOT / LINE).read_text()))
        self.instead["python examples/line/plant.py run"] = self._run_plant

    def follow(self, command: str) -> None:
        """Do what a line of the page says, with the addresses that are taken here."""
        command = command.replace(LINE, "line.yaml")
        if command.startswith("curl"):  # a person is slower than a proxy comes up
            self.until(lambda: self.runs(command), command)
        super().follow(command)

    def _run_plant(self) -> None:
        ports = [str(self.ports[port]) for port in PORTS[:3]]
        log = (self.folder / "plant.log").open("w")
        with log:
            self._plant = subprocess.Popen(
                [sys.executable, str(PLANT), "run", "--ports", *ports],
                cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually_sync(lambda: "the plant runs" in self.plant_log, limit_s=LIMIT_S, what="the plant")

    @property
    def plant_log(self) -> str:
        return (self.folder / "plant.log").read_text()

    def until_press(self, state: str, *, counter: int, limit: int) -> None:
        """Wait until the guard knows that the press stands or runs, and hear the same from the plant itself."""
        wanted = {
            "reading": counter,
            "limit": limit,
            "stopped": state == "stands",
            "wanted": state == "stands",
        }

        def known() -> bool:
            with contextlib.suppress(ValueError):
                return bool(json.loads(ask(self.agent.endpoint("guard", "guard"))) == wanted)
            return False

        self.until(known, f"the press {state}")
        seen = json.loads(self.run("python examples/line/plant.py look"))
        assert seen == {"counter": counter, "limit": limit, "press": state}

    def until(self, look: Callable[[], bool], what: str) -> None:
        """Wait for a condition; what never comes true is told with what everybody says."""
        try:
            eventually_sync(look, limit_s=LIMIT_S, what=what)
        except AssertionError as error:
            logs = [self.agent.log, *sorted(self.agent.data.glob("instances/*/log"))]
            tails = "\n".join(f"{path}:\n{path.read_text()[-1500:]}" for path in logs)
            known = ask(self.agent.endpoint("guard", "guard"))
            figures = [ask(self.agent.endpoint(f"{kind}-gateway", "gateway"), "/metrics") for kind in KINDS]
            raise AssertionError("\n".join([str(error), known, *figures, tails])) from error

    def guard(self) -> dict[str, Any]:
        """Return what the guard says to curl, which trusts the site's certificates alone."""
        name = f"guard.site.internal:{self.ports['9443']}"
        line = f"curl -s -m 10 --cacert hall.pem --resolve {name}:127.0.0.1 https://{name}/ || true"
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(self.run(line))
            return found
        return {}

    def mosquitto(self, program: str, user: str, *arguments: str) -> str:
        """Run one of mosquitto's clients as an application."""
        (password,) = self.memory.rglob(f"accounts.{user}/password")
        (settings,) = self.memory.rglob("nats.conf")
        port = json.loads(settings.read_text())["mqtt"]["port"]
        command = [program, "-h", "127.0.0.1", "-p", str(port), "-u", user, "-P", password.read_text()]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def kill_broker(self) -> None:
        """Kill the host's broker."""
        (pid,) = (
            pid for pid, words in processes_of(self.agent.data).items() if words[0].endswith("/nats-server")
        )
        os.kill(pid, signal.SIGKILL)

    def cut_power(self) -> None:
        """Take hub, agent and all that it started away at once, and what was in memory."""
        self.hub.kill()
        # The proxy works in the directory in memory, all others in the agent's.
        while found := {**processes_of(self.agent.data), **processes_of(self.memory)}:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.agent.kill()
        for path in self.memory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        super().close()
        if self._plant is not None:
            self._plant.terminate()
            self._plant.wait(30)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A line that nothing has been done for."""
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    for program in ("ffmpeg", "mosquitto_sub", "curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    memory = Path("/dev/shm") / f"skerry-line-{os.getpid()}"
    memory.mkdir()
    made = Line(tmp_path, memory)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(memory, ignore_errors=True)


@pytest.mark.rule("BINDING-6", "BUS-1", "HOST-4")
def test_a_camera_stops_a_press_with_a_hub_and_after_a_power_cut_with_none(line: Line) -> None:
    lines = list(commands(PAGE))
    cut = lines.index("skerry agent down --data agent")
    for command in lines[:cut]:
        if command.endswith("plant.py show 7"):
            line.until_press("runs", counter=3994, limit=99999)
        line.follow(command)
        if command.endswith("plant.py limit 30000"):
            line.until_press("stands", counter=35998, limit=30000)
    check_interfaces(line, reading=35998, limit=30000)

    # Everybody finds the bus again when it has died.
    line.kill_broker()
    line.follow("python examples/line/plant.py limit 50000")
    line.until_press("runs", counter=35998, limit=50000)

    # Instead of ending all in order, as the page does.
    line.cut_power()
    for command in lines[cut + 1 : -2]:
        line.follow(command)
    line.until_press("runs", counter=35998, limit=40000)
    line.follow("python examples/line/plant.py show 20")
    line.until_press("stands", counter=79633, limit=40000)
    check_interfaces(line, reading=79633, limit=40000)

    for command in lines[-2:]:
        line.follow(command)
    assert {**processes_of(line.agent.data), **processes_of(line.memory)} == {}


def check_interfaces(line: Line, *, reading: int, limit: int) -> None:
    """Ask the bus and the ingress as clients that know nothing of Skerry."""
    wanted = {"reading": reading, "limit": limit, "stopped": True, "wanted": True}
    line.until(lambda: line.guard() == wanted, "the guard")
    said = line.mosquitto("mosquitto_sub", "guard", "-t", "reading/counter", "-C", "1", "-W", "30")
    assert json.loads(said)["value"] == reading

    # What is beyond an application's topics is dropped: the limit stays what the panel says.
    line.mosquitto(
        "mosquitto_pub", "reader", "-t", "modbus/panel/limit", "-m", '{"value": 1}', "-r", "-q", "1"
    )
    kept = line.mosquitto("mosquitto_sub", "guard", "-t", "modbus/panel/limit", "-C", "1", "-W", "30")
    assert json.loads(kept)["value"] == limit

    place = f"127.0.0.1:{line.ports['9443']}"
    name = "guard.site.internal"
    shown = line.run(
        f"openssl s_client -connect {place} -servername {name} -verify_hostname {name} -CAfile hall.pem"
        " -verify_return_error < /dev/null"
    )
    assert "Verify return code: 0 (ok)" in shown
