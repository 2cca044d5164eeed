"""A release whose latency doubles is refused by the host's own gate, with no hub, and the host tells so later."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = pytest.mark.e2e

# What an answer took is stated and not measured, so that a busy machine makes no other release of it.
APP = (
    SERVING
    + """
import itertools, pathlib, threading

took_s = float(pathlib.Path(__file__).with_name("took.txt").read_text())
bounds = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
turn, answers, looks = threading.Lock(), 0, 0


class Handler(Answering):
    def do_GET(self):
        global answers, looks
        with turn:
            if self.path == "/metrics":
                looks += 1
                lines = [f'talk_seconds_bucket{{le="{b}"}} {answers if took_s <= b else 0}' for b in bounds]
                return self.answer(200, "\\n".join([*lines, f'talk_seconds_bucket{{le="+Inf"}} {answers}', ""]))
            if self.path == "/looks":
                return self.answer(200, str(looks))
            if self.path == "/":
                answers += 1
        self.answer(200, os.environ["SKERRY_RELEASE"])


serve(Handler)
"""
)

DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {{name: talker}}
spec:
  version: {version}
  components:
    - name: mouth
      bundle: {{files: [{{path: app.py, source: app.py}}, {{path: took.txt, source: {version}.txt}}]}}
      command: [python3, "${{bundle}}/app.py"]
      ports: [{{name: http}}]
      probes: {{readiness: {{http: {{port: http, path: /healthz}}, period: 200ms}}}}
      metrics:
        port: http
        interval: 1s
        collect: [{{name: latency, histogram: talk_seconds}}]
      stop: {{grace: 2s}}
"""

ROLLOUT = """
apiVersion: skerry/v1
kind: Rollout
metadata: {{name: {name}}}
spec:
  release: talker@{version}
  sites: "*"
  health: {{deadline: 30s, soak: {soak}}}
  gates: [{gate}]
"""
GATE = "{metric: latency, kind: quantile, quantile: 0.5, max_increase: 20%, min_samples: 20}"


def push(fleet: TestFleet, version: str, took_s: float) -> None:
    folder = fleet.folder / "release"
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(APP)
    (folder / f"{version}.txt").write_text(str(took_s))
    document = folder / f"release-{version}.yaml"
    document.write_text(DOCUMENT.format(version=version))
    fleet.run("release", "push", str(document))


def roll_out(fleet: TestFleet, version: str, *, soak: str, gate: str = "") -> str:
    name = f"to-{version.replace('.', '-')}"
    fleet.run("apply", "-f", "-", stdin=ROLLOUT.format(name=name, version=version, soak=soak, gate=gate))
    return name


@contextmanager
def visitors(agent: AgentProcess) -> Generator[None]:
    """Ask the application all the time, whatever release of it runs."""
    over = threading.Event()

    def visit() -> None:
        while not over.wait(0.02):
            ask(agent.endpoint("talker", "mouth"))

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def runs(agent: AgentProcess, version: str) -> bool:
    view = agent.application("talker")
    said = ask(agent.endpoint("talker", "mouth"))
    return view.get("phase") == "running" and said == f"talker@{version}"


@pytest.mark.rule("HOST-9")
def test_a_release_whose_latency_doubles_is_refused_at_a_site_with_no_hub(fleet: TestFleet) -> None:
    fleet.make_site("harbour")
    agent = fleet.add_agent("harbour", "edge")
    push(fleet, "1.0.0", 0.05)
    push(fleet, "2.0.0", 0.1)
    roll_out(fleet, "1.0.0", soak="300ms")
    fleet.until(lambda: runs(agent, "1.0.0"), agent.log.read_text)
    with visitors(agent):
        fleet.until(lambda: int(ask(agent.endpoint("talker", "mouth"), "/looks") or 0) >= 4)
        rollout = roll_out(fleet, "2.0.0", soak="10m", gate=GATE)
        fleet.until(lambda: agent.application("talker").get("phase") in ("starting", "soaking"))
        fleet.hub.kill()
        fleet.until(lambda: agent.application("talker").get("refused"), agent.log.read_text)
        fleet.until(lambda: runs(agent, "1.0.0"), agent.log.read_text)
    (why,) = agent.application("talker")["refused"].values()
    assert "latency p50" in why
    assert "worse than allowed" in why
    fleet.hub.start()
    fleet.until(lambda: fleet.rollout_state(rollout) == "failed")
    assert agent.log.read_text().count("release.trial message=talker@2.0.0") == 1
    agent.stop()
    store, _ = SqliteAgentStore.open(agent.folder / "data" / "agent.db")
    kept = {row.release for row in store.windows(application="talker")}
    store.close()
    assert kept == {"talker@1.0.0", "talker@2.0.0"}, "what the verdict was made of is kept for the hub"
