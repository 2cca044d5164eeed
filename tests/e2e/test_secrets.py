"""A secret on real processes: set, used on two hosts, rotated while the hub is gone, and in clear nowhere else."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.testing.fleet import AgentProcess
from skerry.testing.processes import processes_of
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = [pytest.mark.e2e, pytest.mark.secrets]

OLD, NEW = "old-canary-of-the-line-4c1a", "new-canary-of-the-line-77e0"

APP = (
    SERVING
    + """
import hashlib, pathlib


class Handler(Answering):
    def do_GET(self):
        value = pathlib.Path(os.environ["SKERRY_SECRETS"], "password").read_bytes()
        told = [hashlib.sha256(each).hexdigest() for each in (value, os.environb[b"PASSWORD"])]
        self.answer(200, " ".join(told))


serve(Handler)
"""
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {name: keeper}
spec:
  version: 1.0.0
  components:
    - name: box
      bundle: {files: [{path: app.py, source: app.py}]}
      command: [python3, "${bundle}/app.py"]
      secrets:
        - {name: password, path: password}
        - {name: password, env: PASSWORD, on_change: {restart: true}}
      ports: [{name: http}]
      probes: {startup: {http: {port: http, path: /}, period: 100ms, timeout: 2s, failures: 100}}
      stop: {grace: 2s}
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, as a host has."""
    folder = Path("/dev/shm") / f"skerry-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def told(value: str) -> str:
    return " ".join([hashlib.sha256(value.encode()).hexdigest()] * 2)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.rule("SECRET-1", "SECRET-3")
def test_a_secret_is_set_used_and_rotated_without_a_link_and_found_nowhere_else(
    fleet: TestFleet, memory: Path
) -> None:
    fleet.env["SKERRY_RUN_DIR"] = str(memory)
    fleet.make_site("harbour")
    agents = [fleet.add_agent("harbour", name) for name in ("edge-1", "edge-2")]
    release = fleet.folder / "keeper"
    release.mkdir()
    (release / "app.py").write_text(APP)
    (release / "keeper.yaml").write_text(DOCUMENT)
    fleet.run("release", "push", str(release / "keeper.yaml"))
    start = ("rollout", "start", "keeper@1.0.0", "--sites", "*", "--name", "all", "--soak", "300ms")
    refused = fleet.try_run(*start)
    assert "no value at harbour" in refused.stderr
    fleet.run("secret", "set", "password", stdin=OLD)
    fleet.run(*start)

    def tells(agent: AgentProcess, value: str) -> None:
        fleet.until(
            lambda: ask(agent.endpoint("keeper", "box")) == told(value), lambda: agent.log.read_text()[-4000:]
        )

    for agent in agents:
        tells(agent, OLD)
    assert "gets version 1" in fleet.run("explain", "secret", "password", "--site", "harbour")
    listed = fleet.get("secret", "list", "--exposed-by", "edge-2")
    assert [(one["name"], one["version"], one["rotate_needed"]) for one in listed] == [("password", 1, True)]

    (before,) = fleet.get("get", "sites")
    fleet.run("secret", "rotate", "password", "--not-before", "10s", stdin=NEW)
    fleet.until(lambda: held_by_all(fleet, after=before["generation"]))
    fleet.hub.kill()
    for pid in processes_of(agents[1].folder):
        os.kill(pid, signal.SIGKILL)
    agents[1].kill()
    for place in memory.iterdir():
        shutil.rmtree(place)  # of both: the first host's agent puts its own back
    agents[1].start()
    for agent in agents:
        tells(agent, NEW)

    on_disk = everything(fleet.folder)
    assert NEW.encode() in everything(memory)
    agents[0].stop()
    assert "ended keeper" in fleet.run("agent", "down", "--data", str(agents[0].data))
    agents[1].stop()
    fleet.env.pop("SKERRY_RUN_DIR")
    fleet.run("agent", "down", "--data", str(agents[1].data))
    assert list(memory.iterdir()) == [], "nothing that runs needs them"
    assert [value for value in (OLD, NEW) if value.encode() in on_disk] == []


def held_by_all(fleet: TestFleet, *, after: int) -> bool:
    """Tell whether every host holds what its site was issued last, later than a generation."""
    (site,) = fleet.get("get", "sites")
    held = [agent.status().get("observed", {}).get("generation") for agent in fleet.agents.values()]
    return site["generation"] > after and set(held) == {site["generation"]}
