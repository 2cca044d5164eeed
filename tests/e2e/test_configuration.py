"""Configurations on real processes: taken without a restart, rolled back on three hosts, kept without a link."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.processes import processes_of
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = pytest.mark.e2e

APP = (
    SERVING
    + """
import json, pathlib, signal

config = {}


def load(*_):
    config.clear()
    config.update(json.loads(pathlib.Path(os.environ["SKERRY_CONFIG"], "app.json").read_text()))


load()
signal.signal(signal.SIGHUP, load)


class Handler(Answering):
    def do_GET(self):
        good = config["good"] or self.path != "/ready"
        self.answer(200 if good else 503, json.dumps({**config, "pid": os.getpid()}))


serve(Handler)
"""
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {name: gauge}
spec:
  version: 1.0.0
  config:
    defaults: {good: true, rate: 1, where: "${site.name}/${host.name}"}
    schema: {properties: {rate: {type: integer, maximum: 100}}, additionalProperties: {type: [string, boolean]}}
  components:
    - name: box
      bundle: {files: [{path: app.py, source: app.py}]}
      command: [python3, "${bundle}/app.py"]
      config: {files: [{path: app.json}], on_change: {signal: HUP}}
      ports: [{name: http}]
      probes:
        startup: {http: {port: http, path: /}, period: 100ms, timeout: 2s, failures: 100}
        readiness: {http: {port: http, path: /ready}, period: 200ms, timeout: 2s, failures: 2}
      stop: {grace: 2s}
"""
CONFIGURATION = """
apiVersion: skerry/v1
kind: Configuration
metadata: {{name: line}}
spec:
  application: gauge
  of: {{selector: region=north}}
  values:
    rate: {rate}
    good: {good}
"""
SITES = ("basel", "chur", "zurich")


def told(agent: AgentProcess) -> dict[str, Any]:
    said = ask(agent.endpoint("gauge", "box"))
    return dict(json.loads(said)) if said.startswith("{") else {}


def roll_out(fleet: TestFleet, name: str) -> None:
    gate = ("--soak", "300ms", "--deadline", "5s", "--waves", "100%", "--wave-soak", "0s")
    fleet.run("rollout", "start", "gauge@1.0.0", "--sites", "*", "--name", name, *gate)


def configure(fleet: TestFleet, rate: int, *, good: bool = True) -> None:
    text = CONFIGURATION.format(rate=rate, good=str(good).lower())
    fleet.run("apply", "-f", "-", stdin=text)


@pytest.mark.rule("CONFIG-1", "CONFIG-2", "CONFIG-3")
def test_a_configuration_is_taken_refused_rolled_back_and_kept_without_a_link(fleet: TestFleet) -> None:
    fleet.make_sites(*SITES)
    agents = {name: fleet.add_agent(name, f"{name}-1") for name in SITES}
    release = fleet.folder / "gauge"
    release.mkdir()
    (release / "app.py").write_text(APP)
    (release / "gauge.yaml").write_text(DOCUMENT)
    fleet.run("release", "push", str(release / "gauge.yaml"))

    def until(rate: int) -> dict[str, int]:
        def all_tell() -> dict[str, int]:
            said = {name: told(agent) for name, agent in agents.items()}
            wanted = all(
                one.get("rate") == rate and one["good"] and one["where"] == f"{name}/{name}-1"
                for name, one in said.items()
            )
            return {name: one["pid"] for name, one in said.items()} if wanted else {}

        return fleet.until(
            all_tell, lambda: "\n".join(one.log.read_text()[-2000:] for one in agents.values())
        )

    roll_out(fleet, "first")
    pids = until(1)
    fleet.until(lambda: fleet.rollout_state("first") == "succeeded")

    refused = fleet.try_run("apply", "-f", "-", stdin=CONFIGURATION.format(rate=101, good="true"))
    assert "stdin:9: Configuration line: spec.values.rate: breaks the schema" in refused.stderr
    assert "at basel, chur, zurich" in refused.stderr

    configure(fleet, 5)
    assert "rate: 1" not in fleet.run("config", "render", "gauge", "--site", "chur")
    assert told(agents["chur"])["rate"] == 1, "nothing moves without a rollout"
    roll_out(fleet, "second")
    assert until(5) == pids, "nobody was restarted"
    fleet.until(lambda: fleet.rollout_state("second") == "succeeded")

    configure(fleet, 9, good=False)
    roll_out(fleet, "third")
    fleet.until(lambda: all(_has_refused(agent) for agent in agents.values()))
    assert until(5) == pids
    fleet.until(lambda: fleet.rollout_state("third") == "failed")

    fleet.hub.kill()
    agent = agents["basel"]
    for pid in processes_of(agent.folder):
        os.kill(pid, signal.SIGKILL)
    agent.kill()
    agent.start()
    after = until(5)
    assert after["basel"] != pids["basel"]
    assert (after["chur"], after["zurich"]) == (pids["chur"], pids["zurich"])


def _has_refused(agent: AgentProcess) -> bool:
    return bool(agent.application("gauge").get("refused"))
