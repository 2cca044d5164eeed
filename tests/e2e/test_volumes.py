"""Data that outlives updates, and that is emptied exactly once when a person asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.fleet import AgentProcess
from tests.e2e.conftest import SITE, TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = pytest.mark.e2e

# Each start adds a line, and each answer is what the file holds: whatever happens to the data is seen.
APP = (
    SERVING
    + """
import pathlib, sys

count = pathlib.Path(sys.argv[1]) / "count"
with count.open("a") as file:
    file.write(f"{os.environ['SKERRY_RELEASE']} {os.getpid()}\\n")


class Handler(Answering):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        self.answer(200, count.read_text())


serve(Handler)
"""
)

DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {{name: counter}}
spec:
  version: {version}
  components:
    - name: main
      bundle: {{files: [{{path: app.py, source: app.py}}]}}
      command: [python3, "${{bundle}}/app.py", "${{volume.log}}"]
      volumes: [{{name: log, size: 64MiB}}]
      ports: [{{name: http}}]
      probes:
        startup: {{http: {{port: http}}, period: 100ms, failures: 100}}
        readiness: {{http: {{port: http}}, period: 500ms}}
        liveness: {{http: {{port: http}}, period: 1s}}
      stop: {{grace: 2s}}
"""


def push(fleet: TestFleet, version: str) -> None:
    folder = fleet.folder / "counter"
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(APP)
    path = folder / f"release-{version}.yaml"
    path.write_text(DOCUMENT.format(version=version))
    fleet.run("release", "push", str(path))
    rollout = f"counter-{version.replace('.', '-')}"
    gate = ("--soak", "300ms", "--deadline", "20s")
    fleet.run("rollout", "start", f"counter@{version}", "--sites", "*", "--name", rollout, *gate)
    fleet.run("rollout", "watch", rollout)


def lines(agent: AgentProcess) -> list[str]:
    """Return what the file holds, as the application that runs says; nothing while none answers."""
    return ask(agent.endpoint("counter", "main")).splitlines()


def until(
    fleet: TestFleet, agent: AgentProcess, wanted: Callable[[list[str]], bool], *, version: str = "1.0.0"
) -> list[str]:
    """Wait until the release runs for good and the file is as wanted; return it."""

    def found() -> list[str]:
        view = agent.application("counter")
        good = view.get("phase") == "running" and view.get("release") == f"counter@{version}"
        held = lines(agent)
        return held if good and held and wanted(held) else []

    return fleet.until(found, lambda: f"{lines(agent)}\n{agent.status()}\n{agent.log.read_text()[-3000:]}")


def crash(fleet: TestFleet, agent: AgentProcess, before: list[str], *, version: str = "1.0.0") -> list[str]:
    """End the application and wait until it runs again; what the file held is still there, with a line more."""
    ask(agent.endpoint("counter", "main"), "/crash")
    return until(fleet, agent, lambda held: held[:-1] == before, version=version)


def reissue(fleet: TestFleet, agent: AgentProcess, greeting: str) -> None:
    """Make the hub issue another desired state for another reason, and wait until the host holds it."""
    before = generation(agent)
    fleet.run(
        "apply", "-f", "-", stdin=SITE.format(name="harbour", region="north").replace("hello", greeting)
    )
    fleet.until(lambda: generation(agent) > before, lambda: str(agent.status()))


def generation(agent: AgentProcess) -> int:
    observed: dict[str, Any] = agent.status().get("observed") or {}
    return int(observed.get("generation", 0))


def wiped(agent: AgentProcess) -> str:
    path = agent.data / "volumes" / ".wiped" / "counter"
    return path.read_text() if path.exists() else "0"


def told(fleet: TestFleet) -> int:
    events = fleet.get("get", "events", "--limit", "1000")
    return sum(event["event"]["kind"] == "volumes.wiped" for event in events)


@pytest.fixture
def agent(fleet: TestFleet) -> AgentProcess:
    """A host whose application has started twice."""
    fleet.make_site("harbour")
    made = fleet.add_agent("harbour", "edge")
    push(fleet, "1.0.0")
    crash(fleet, made, until(fleet, made, lambda held: len(held) == 1))
    return made


def test_data_outlives_updates_and_a_wipe_empties_it_exactly_once(
    fleet: TestFleet, agent: AgentProcess
) -> None:
    before = lines(agent)
    assert fleet.try_run("volume", "wipe", "counter", "--site", "harbour").returncode == 2
    shown = fleet.run("volume", "wipe", "counter", "--site", "harbour", "--dry-run")
    assert "main/log (at most 64MiB)" in shown
    assert "  edge" in shown
    assert lines(agent) == before

    answer = fleet.get("volume", "wipe", "counter", "--site", "harbour", "--yes")
    assert (answer["count"], answer["hosts"]) == (1, ["edge"])
    held = until(fleet, agent, lambda held: held[0] != before[0])
    assert len(held) == 1, "the same release began anew, empty"
    assert fleet.rollout_state("counter-1-0-0") == "succeeded"
    fleet.until(lambda: told(fleet) == 1)

    reissue(fleet, agent, "good day")
    held = crash(fleet, agent, held)
    agent.kill()
    agent.start()
    reissue(fleet, agent, "good evening")
    held = crash(fleet, agent, held)
    push(fleet, "1.1.0")
    updated = until(fleet, agent, lambda found: found[:-1] == held, version="1.1.0")
    assert updated[-1].startswith("counter@1.1.0 "), "a new release finds the data of the one before"
    assert (wiped(agent), told(fleet)) == ("1", 1)
    [view] = fleet.get("volume", "list", "--site", "harbour")
    assert (view["release"], view["wipes"]) == ("counter@1.1.0", 1)


def test_killing_the_agent_at_any_moment_of_a_wipe_empties_the_data_once(
    fleet: TestFleet, agent: AgentProcess
) -> None:
    before = lines(agent)
    agent.stop()
    answer = fleet.get("volume", "wipe", "counter", "--site", "harbour", "--yes")
    assert answer["hosts"] == ["edge"], "a host that is away does it when it is back"
    assert ask_file(agent) == before
    agent.start()
    # Each life of the agent ends at the next line of its log: after every step it takes, it is killed once.
    for _ in range(12):
        size = agent.log.stat().st_size
        fleet.until(lambda size=size: agent.log.stat().st_size > size)  # type: ignore[misc]
        agent.kill()
        agent.start()
    held = until(fleet, agent, lambda held: wiped(agent) == "1" and held[0] not in before)
    reissue(fleet, agent, "good day")
    agent.kill()
    agent.start()
    held = crash(fleet, agent, held)
    assert wiped(agent) == "1"


def test_volumes_are_emptied_at_the_host_without_a_hub(fleet: TestFleet, agent: AgentProcess) -> None:
    before = lines(agent)
    fleet.hub.kill()
    wipe = ("agent", "wipe", "counter", "--data", str(agent.data), "--yes")
    assert "another agent runs" in fleet.try_run(*wipe).stderr
    agent.stop()
    done = fleet.try_run(*wipe)
    assert done.returncode == 5
    assert "skerry agent down" in done.stderr
    assert ask_file(agent) == before
    fleet.run("agent", "down", "--data", str(agent.data))
    assert "emptied main/log" in fleet.run(*wipe)
    assert ask_file(agent) == []
    agent.start()
    assert len(until(fleet, agent, lambda held: held[0] not in before)) == 1
    fleet.hub.start()
    answer = fleet.get("volume", "wipe", "counter", "--site", "harbour", "--yes")
    assert answer["count"] == 1, "what is done at the host counts nothing at the hub"
    fleet.until(lambda: wiped(agent) == "1")


def ask_file(agent: AgentProcess) -> list[str]:
    """Return what the file holds, without asking the application."""
    path: Path = agent.data / "volumes" / "counter" / "main" / "log" / "count"
    return path.read_text().splitlines() if path.exists() else []
