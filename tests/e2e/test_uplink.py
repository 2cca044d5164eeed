"""Messages of an application arrive once behind a relay, whoever dies on the way; one comes down to it as well."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.relay_fleet import RelayFleet, url_of
from tests.e2e.releases import ask
from tests.e2e.test_bus import TALK

pytestmark = [pytest.mark.e2e, pytest.mark.broker]

LINE = (
    TALK
    + """
came = []

def listen():
    command = ["mosquitto_sub", *access(), "-i", "line", "-c", "-q", "1", "-v", "-t", "plant/set/+"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            came.append(line.strip())

threading.Thread(target=listen, daemon=True).start()

class Handler(Answering):
    def do_GET(self):
        topic, _, text = urllib.parse.unquote(self.path[1:]).partition("=")
        if not text:
            self.answer(200, ";".join(came))
            return
        command = ["mosquitto_pub", *access(), "-t", topic, "-q", "1", "-l"]
        done = subprocess.run(command, input="\\n".join(text.split(",")), capture_output=True, text=True, timeout=20)
        self.answer(200 if done.returncode == 0 else 503, done.stderr)

serve(Handler)
"""
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {name: line}
spec:
  version: 1.0.0
  topics:
    publish: [plant/#]
    subscribe: [plant/set/+]
    uplink: [{topic: plant/line1/+, priority: high, max_rate: 1000}]
    downlink: [plant/set/speed]
  components:
    - name: app
      bundle: {files: [{path: app.py, source: line.py}]}
      command: [python3, "${bundle}/app.py"]
      ports: [{name: http}]
      probes: {startup: {http: {port: http, path: /}, period: 100ms, timeout: 2s, failures: 100}}
      stop: {grace: 1s}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RelayFleet]:
    """A fleet with a directory in memory, as hosts have."""
    folder = Path("/dev/shm") / f"skerry-uplink-{os.getpid()}"
    folder.mkdir()
    made = RelayFleet(tmp_path)
    made.env["SKERRY_RUN_DIR"] = str(folder)
    with made.start():
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def tail(fleet: RelayFleet) -> list[dict[str, Any]]:
    told = fleet.run("topics", "tail", "plant/#", "--since", "1h", "-o", "json")
    return [json.loads(line) for line in told.splitlines()]


@pytest.mark.rule("UPLINK-1", "UPLINK-5")
def test_what_is_published_while_the_hub_is_away_and_the_agent_dies_arrives_once(fleet: RelayFleet) -> None:
    fleet.make_site("harbour")
    relay = fleet.add_relay("dmz")
    agent = fleet.add_agent_by("harbour", "edge", [url_of(relay)])
    (fleet.folder / "line.py").write_text(LINE)
    document = fleet.folder / "line.yaml"
    document.write_text(DOCUMENT)
    fleet.run("release", "push", str(document))
    fleet.run("rollout", "start", "line@1.0.0", "--sites", "*", "--name", "line", "--soak", "300ms")
    fleet.until(lambda: agent.application("line").get("phase") == "running")

    def say(*numbers: int) -> None:
        ask(agent.endpoint("line", "app"), f"/plant/line1/count={','.join(map(str, numbers))}")

    def texts() -> list[str]:
        return sorted((one["text"] for one in tail(fleet)), key=int)

    say(1, 2)
    fleet.until(lambda: texts() == ["1", "2"], lambda: agent.log.read_text()[-4000:])
    fleet.hub.kill()
    say(*range(3, 40))
    agent.kill()
    say(*range(40, 60))
    agent.start()
    say(*range(60, 80))
    fleet.hub.start()
    wanted = list(map(str, range(1, 80)))
    fleet.until(lambda: set(texts()) >= set(wanted), lambda: agent.log.read_text()[-4000:])
    assert texts() == wanted
    (source,) = fleet.get("topics", "sources")
    assert (source["host"], source["missing_batches"], source["dropped"]) == ("edge", 0, [])

    refused = fleet.try_run(
        "topics", "send", "plant/other", "--app", "line", "--site", "harbour", "--json", "1"
    )
    assert "takes nothing from the hub on plant/other" in refused.stderr
    to = ("plant/set/speed", "--app", "line", "--site", "harbour", "--json", '{"rpm":900}')
    assert "would be sent to 1 site: harbour" in fleet.run("topics", "send", *to, "--dry-run")
    fleet.run("topics", "send", *to, "--expires", "10m")
    fleet.until(lambda: [one["hosts"] for one in fleet.get("topics", "sent")] == [{"edge": "delivered"}])
    fleet.until(lambda: "plant/set/speed" in ask(agent.endpoint("line", "app")))
    agent.kill()
    agent.start()
    fleet.until(lambda: [one["hosts"] for one in fleet.get("topics", "sent")] == [{"edge": "delivered"}])
    assert ask(agent.endpoint("line", "app")).count("plant/set/speed") == 1
