"""A release gets copies of real requests: one that answers otherwise is refused before a client has seen it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skerry.adapters.envoy_proxy import find_program
from skerry.testing.fleet import AgentProcess, free_port
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING

pytestmark = [pytest.mark.e2e, pytest.mark.envoy]

# Of ten images a release sees as many wrongly as its model says; each answer says which release gave it.
APP = (
    SERVING
    + """
import json, pathlib

wrong = int(pathlib.Path(__file__).with_name("wrong.txt").read_text())


class Handler(Answering):
    def do_POST(self):
        image = int(self.rfile.read(int(self.headers["content-length"])))
        scores = {"cat": 0.1, "dog": 0.9} if image % 10 < wrong else {"cat": 0.8, "dog": 0.2}
        self.answer(200, json.dumps({"release": os.environ["SKERRY_RELEASE"], "scores": scores}))

    def do_GET(self):
        self.answer(200, os.environ["SKERRY_RELEASE"])


serve(Handler)
"""
)

DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {{name: eye}}
spec:
  version: "{version}"
  update: shadow
  components:
    - name: web
      bundle: {{files: [{{path: app.py, source: app.py}}, {{path: wrong.txt, source: "{version}.txt"}}]}}
      command: [python3, "${{bundle}}/app.py"]
      ports: [{{name: http}}]
      probes: {{readiness: {{http: {{port: http, path: /}}, period: 200ms}}}}
      stop: {{grace: 2s}}
  ingress:
    - name: main
      component: web
      port: http
      tls: plain
      shadow: {{share: 100%, methods: [POST], compare: top-1, label: "$.scores", timeout: 60s}}
"""

ROLLOUT = """
apiVersion: skerry/v1
kind: Rollout
metadata: {{name: "eye-{version}"}}
spec:
  release: eye@{version}
  sites: "*"
  health: {{deadline: 60s, soak: {soak}}}
  gates: [{gates}]
"""
GATE = "{metric: shadow_disagreement, kind: rate, compare: bound, bound: 0.0, max_increase: '0.1', min_samples: 50}"


class Eyes:
    """One host with a route, and a client that shows it images."""

    def __init__(self, fleet: TestFleet) -> None:
        self.fleet, self.port = fleet, free_port()
        fleet.make_site("harbour")
        self.agent: AgentProcess = fleet.add_agent("harbour", "edge")
        self.agent.stop()
        self.agent.arguments += ("--ingress-http", str(self.port), "--ingress-https", str(free_port()))
        self.agent.start()
        fleet.until(lambda: "ingress" in fleet.get("get", "hosts")[0]["facts"])

    def start(self, version: str, wrong: int, *, soak: str, gates: str = "") -> None:
        folder: Path = self.fleet.folder / "eye"
        folder.mkdir(exist_ok=True)
        (folder / "app.py").write_text(APP)
        (folder / f"{version}.txt").write_text(str(wrong))
        (folder / f"{version}.yaml").write_text(DOCUMENT.format(version=version))
        (folder / f"{version}-rollout.yaml").write_text(
            ROLLOUT.format(version=version, soak=soak, gates=gates)
        )
        self.fleet.run("release", "push", str(folder / f"{version}.yaml"))
        self.fleet.run("apply", "-f", str(folder / f"{version}-rollout.yaml"))

    def show(self, image: int) -> str:
        """Return which release answered, or what came instead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/", str(image), {"Host": "eye.site.internal"})
            answer = connection.getresponse()
            said = answer.read().decode()
            return str(json.loads(said)["release"]) if answer.status == 200 else f"{answer.status}: {said}"
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()

    @contextmanager
    def showing(self) -> Generator[set[str]]:
        """Show images one after the other all the time; collect who answers."""
        found: set[str] = set()
        over = threading.Event()

        def show() -> None:
            image = 0
            # Whole rounds, so that exactly as many are planted as the release says.
            while not over.is_set() or image % 10:
                found.add(self.show(image))
                image += 1

        client = threading.Thread(target=show)
        client.start()
        try:
            yield found
        finally:
            over.set()
            client.join()


@pytest.mark.rule("INGRESS-7")
def test_a_release_that_answers_otherwise_is_refused_before_a_client_has_seen_it(fleet: TestFleet) -> None:
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    eyes = Eyes(fleet)
    eyes.start("1", 0, soak="300ms")
    fleet.until(lambda: eyes.show(1) == "eye@1", lambda: str(eyes.agent.status()))
    with eyes.showing() as answers:
        eyes.start("2", 4, soak="10m", gates=GATE)
        state = fleet.until(
            lambda: found if (found := fleet.rollout_state("eye-2")) != "running" else "",
            lambda: eyes.agent.log.read_text()[-2000:],
        )
    assert state != "succeeded"
    assert answers == {"eye@1"}
    (why,) = eyes.agent.application("eye")["refused"].values()
    assert "shadow_disagreement" in why
    assert eyes.show(0) == "eye@1"
