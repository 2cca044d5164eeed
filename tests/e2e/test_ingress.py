"""The way in from a site's network: a real hub, agent and Envoy, applications of two makers, and curl as the client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.envoy_proxy import INSTANCE, find_program
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.testing.fleet import AgentProcess, free_port
from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING

pytestmark = [pytest.mark.e2e, pytest.mark.envoy]

APP = (
    SERVING
    + """
class Handler(Answering):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = os.environ["SKERRY_RELEASE"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


Handler.wbufsize = 1 << 16
serve(Handler)
"""
)

DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {{name: {name}}}
spec:
  version: "{version}"
  update: blue-green
  components:
    - name: web
      bundle: {{files: [{{path: app.py, source: app.py}}]}}
      command: [python3, "${{bundle}}/app.py"]
      ports: [{{name: http}}]
      probes:
        startup: {{http: {{port: http, path: /}}, period: 100ms, timeout: 2s, failures: 100}}
        readiness: {{http: {{port: http, path: /}}, period: 500ms}}
      stop: {{grace: 2s}}
  ingress: {routes}
"""


class Way:
    """A site with one host, and clients of what is there."""

    def __init__(self, fleet: TestFleet) -> None:
        self.fleet = fleet
        self.http, self.https = free_port(), free_port()
        fleet.make_site("harbour")
        self.agent: AgentProcess = fleet.add_agent("harbour", "edge")
        self.agent.stop()
        self.agent.arguments += ("--ingress-http", str(self.http), "--ingress-https", str(self.https))
        self.agent.start()
        fleet.until(lambda: self._facts().get("ingress.http", {}).get("value") == self.http)

    def _facts(self) -> dict[str, Any]:
        return dict(self.fleet.get("get", "hosts")[0]["facts"])

    def push(self, name: str, version: str, *routes: dict[str, Any]) -> None:
        folder = self.fleet.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "app.py").write_text(APP)
        whole = [
            {"name": f"r{place}", "component": "web", "port": "http", **one}
            for place, one in enumerate(routes)
        ]
        path = folder / f"{version}.yaml"
        path.write_text(DOCUMENT.format(name=name, version=version, routes=json.dumps(whole)))
        self.fleet.run("release", "push", str(path))

    def start(self, name: str, version: str) -> tuple[int, str]:
        """Start a rollout; return the exit code, and what was said."""
        gate = ("--soak", "300ms", "--deadline", "20s", "--name", f"{name}-{version}")
        done = self.fleet.try_run("rollout", "start", f"{name}@{version}", "--sites", "*", *gate)
        return done.returncode, done.stdout + done.stderr

    def roll_out(self, name: str, version: str) -> None:
        code, said = self.start(name, version)
        assert code == 0, said
        state = self.fleet.until(
            lambda: found if (found := self.fleet.rollout_state(f"{name}-{version}")) != "running" else "",
            lambda: self.agent.log.read_text()[-2000:],
        )
        assert state == "succeeded"

    def curl(self, url: str) -> tuple[str, str]:
        """Return the status and the body."""
        name = url.split("/")[2]
        url = url.replace(name, f"{name}:{self.http}", 1)
        done = subprocess.run(
            ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "--resolve", f"{name}:{self.http}:127.0.0.1", url],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        body, _, status = done.stdout.rpartition("\n")
        return status, body

    def until(self, url: str, wanted: tuple[str, str]) -> None:
        self.fleet.until(lambda: self.curl(url) == wanted, lambda: str((self.curl(url), self.agent.status())))

    @contextmanager
    def asking(self, url: str) -> Generator[Counter[tuple[str, str]]]:
        """Have clients ask all the time, over connections that they keep; count what they get."""
        found: Counter[tuple[str, str]] = Counter()
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                name = url.split("/")[2]
                place = url.replace(name, f"{name}:{self.http}", 1)
                done = subprocess.run(
                    ["curl", "-s", "-m", "10", "-w", " %{http_code}\n", "--resolve", f"{name}:{self.http}:127.0.0.1",
                     f"{place}?[1-100]"],
                    capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                found.update((status, body) for body, status in map(str.split, done.stdout.splitlines()))

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            yield found
        finally:
            over.set()
            for client in clients:
                client.join()


@pytest.fixture
def way(fleet: TestFleet) -> Way:
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    return Way(fleet)


@pytest.mark.rule("INGRESS-6")
@pytest.mark.rule("INGRESS-5")
@pytest.mark.rule("INGRESS-4")
def test_clients_of_a_site_reach_what_routes_name_through_updates_and_deaths(way: Way) -> None:
    plain: dict[str, Any] = {"tls": "plain"}
    way.push("reader", "1", plain)
    way.roll_out("reader", "1")
    url = "http://reader.site.internal/"
    way.until(url, ("200", "reader@1"))
    assert way.curl("http://reader.harbour.skerry.internal/") == ("200", "reader@1")
    assert way.curl("http://other.site.internal/")[0] == "404"

    # A switch to the next release ends no request.
    way.push("reader", "2", plain, {"path": "/new", **plain})
    with way.asking(url) as answers:
        way.roll_out("reader", "2")
        way.until(url, ("200", "reader@2"))
    assert set(answers) == {("200", "reader@1"), ("200", "reader@2")}, answers

    # What another application has is refused before anything starts.
    way.push("thief", "1", {"host": "reader", **plain})
    code, said = way.start("thief", "1")
    assert code != 0
    assert "belongs to route" in said
    assert "harbour" in said
    assert "thief" not in way.agent.status()["observed"]["applications"]

    # The proxy dies; so does the agent, while the proxy goes on.
    os.kill(_proxy_of(way.agent.data), signal.SIGKILL)
    way.until(url, ("200", "reader@2"))
    way.agent.kill()
    assert way.curl(url) == ("200", "reader@2")
    way.agent.start()
    assert way.curl(url) == ("200", "reader@2")

    # The hub knows who answers, and how fast.
    trace = way.fleet.get("explain", "route", f"{url}new/x", "--site", "harbour")["trace"]
    assert trace["outcome"].startswith("edge: reader@2 at 127.0.0.1:")
    assert any("route r1 of reader has /new" in hop["answer"] for hop in trace["hops"])
    routes = way.fleet.get("get", "routes", "--site", "harbour")
    assert [(one["route"]["route"], one["route"]["state"]) for one in routes] == [
        ("r0", "serving"),
        ("r1", "serving"),
    ]


def test_both_names_of_a_route_are_proven_by_the_sites_own_certificate(way: Way) -> None:
    way.push("reader", "1", {})
    way.roll_out("reader", "1")
    bundle = way.fleet.folder / "harbour.pem"
    way.fleet.run("pki", "bundle", "harbour", "--out", str(bundle))

    def ask(name: str) -> str:
        done = subprocess.run(
            ["curl", "-s", "-m", "10", "--cacert", bundle, "--resolve", f"{name}:{way.https}:127.0.0.1",
             f"https://{name}:{way.https}/"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return done.stdout

    names = ("reader.site.internal", "reader.harbour.skerry.internal")
    way.fleet.until(lambda: {ask(name) for name in names} == {"reader@1"}, lambda: str(way.agent.status()))


def _proxy_of(data: Path) -> int:
    """Return the process that the host's proxy is."""
    return asyncio.run(ProcessRuntime(data / "ingress" / "instances").instances())[INSTANCE].pid
