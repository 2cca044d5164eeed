"""Two applications joined by topics alone, on a real broker: with and without the hub, and over its death."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.processes import processes_of
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = [pytest.mark.e2e, pytest.mark.broker]

# Both speak to the bus by mosquitto's clients: whoever knows MQTT can join.
TALK = (
    SERVING
    + """
import pathlib, subprocess, threading, urllib.parse

def access():
    bus = os.environ
    password = pathlib.Path(bus["SKERRY_BUS_PASSWORD_FILE"]).read_text()
    return ["-h", bus["SKERRY_BUS_HOST"], "-p", bus["SKERRY_BUS_PORT"], "-u", bus["SKERRY_BUS_USER"], "-P", password]

"""
)
LINE = (
    TALK
    + """
class Handler(Answering):
    def do_GET(self):
        topic, _, text = urllib.parse.unquote(self.path[1:]).partition("=")
        if text:
            command = ["mosquitto_pub", *access(), "-t", topic, "-m", text, "-q", "1", "-r"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            self.answer(200 if done.returncode == 0 else 503, done.stderr)
        else:
            self.answer(200)

serve(Handler)
"""
)
RULES = (
    TALK
    + """
came = []

def listen():
    command = ["mosquitto_sub", *access(), "-i", "rules", "-c", "-q", "1", "-v"]
    command += ["-t", "plant/line1/#", "-t", "plant/orders"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            came.append(line.strip())

threading.Thread(target=listen, daemon=True).start()

class Handler(Answering):
    def do_GET(self):
        self.answer(200, ";".join(came))

serve(Handler)
"""
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {{name: {name}}}
spec:
  version: 1.0.0
  topics: {topics}
  components:
    - name: app
      bundle: {{files: [{{path: app.py, source: {name}.py}}]}}
      command: [python3, "${{bundle}}/app.py"]
      ports: [{{name: http}}]
      probes: {{startup: {{http: {{port: http, path: /}}, period: 100ms, timeout: 2s, failures: 100}}}}
      stop: {{grace: 1s}}
"""
PARTS = {
    "line": (LINE, "{publish: [plant/line1/#, plant/unheard]}"),
    "rules": (RULES, "{subscribe: [plant/line1/#, plant/orders]}"),
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, as a host has."""
    folder = Path("/dev/shm") / f"skerry-bus-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.rule("BUS-1", "BUS-3")
def test_two_applications_are_joined_by_topics_alone(fleet: TestFleet, memory: Path) -> None:
    fleet.env["SKERRY_RUN_DIR"] = str(memory)
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge-1")
    for name, (source, topics) in PARTS.items():
        (fleet.folder / f"{name}.py").write_text(source)
        document = fleet.folder / f"{name}.yaml"
        document.write_text(DOCUMENT.format(name=name, topics=topics))
        fleet.run("release", "push", str(document))
        fleet.run("rollout", "start", f"{name}@1.0.0", "--sites", "*", "--name", name, "--soak", "300ms")

    def came() -> list[str]:
        return ask(agent.endpoint("rules", "app")).split(";")

    def say(topic: str, text: str) -> None:
        fleet.until(lambda: agent.application("line").get("phase") == "running")
        ask(agent.endpoint("line", "app"), f"/{topic}={text}")

    fleet.until(lambda: agent.application("rules").get("phase") == "running")
    say("plant/orders", "beyond-its-pattern")
    say("plant/line1/count", "7")
    fleet.until(lambda: came() == ["plant/line1/count 7"], lambda: agent.log.read_text()[-4000:])

    joined = {(f["application"], f["topic"]): f["joined"] for f in fleet.get("get", "topics")}
    assert joined["line", "plant/line1/#"] == ["rules"]
    told = fleet.run("explain", "topics", "--site", "harbour")
    assert "rules reads plant/orders: nobody publishes it" in told
    assert "line publishes plant/unheard: nobody reads it" in told
    fleet.until(lambda: "On edge-1 it runs" in fleet.run("explain", "topics", "--site", "harbour"))
    assert "nobody reads it, at 1 site: harbour" in fleet.run("release", "preview", "line@1.0.0")

    fleet.hub.kill()
    (broker,) = brokers(agent)
    os.kill(broker, signal.SIGKILL)
    fleet.until(lambda: brokers(agent) not in ([], [broker]))
    assert until_reads(fleet, memory, agent) == "plant/line1/count 7\n"
    say("plant/line1/count", "8")
    fleet.until(lambda: came()[-1] == "plant/line1/count 8", lambda: ";".join(came()))
    assert not [line for line in came() if "beyond" in line]

    (broker,) = brokers(agent)
    agent.kill()
    assert brokers(agent) == [broker], "it needs no agent"
    agent.start()
    say("plant/line1/count", "9")
    fleet.until(lambda: came()[-1] == "plant/line1/count 9", lambda: ";".join(came()))
    assert brokers(agent) == [broker]
    agent.stop()
    fleet.run("agent", "down", "--data", str(agent.data))
    assert brokers(agent) == []
    assert not [file for file in memory.rglob("*") if file.name == "password"]


def brokers(agent: AgentProcess) -> list[int]:
    """Return the numbers of the broker's processes of a host."""
    return [pid for pid, words in processes_of(agent.data).items() if words[0].endswith("/nats-server")]


def until_reads(fleet: TestFleet, memory: Path, agent: AgentProcess) -> str:
    """Read what is retained as the rules would, once the broker lets us."""
    (password,) = memory.rglob("accounts.rules/password")
    status = agent.status()["observed"]["bus"]
    assert status["broker"] == "nats"
    port = port_of(memory)
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-u", "rules", "-P", password.read_text()]
    command += ["-t", "plant/line1/count", "-v", "-C", "1", "-W", "5"]

    def read() -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout

    return fleet.until(read)


def port_of(memory: Path) -> int:
    """Return where the broker listens, as its configuration says."""
    (file,) = memory.rglob("nats.conf")
    return int(json.loads(file.read_text())["mqtt"]["port"])
