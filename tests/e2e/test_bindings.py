"""Bindings on real processes: a site that lacks one is left out, passwords are files, and a pulled device is told."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import TestFleet
from tests.e2e.releases import SERVING, ask

pytestmark = pytest.mark.e2e

TOKEN = "token-canary-2f81"
APP = (
    SERVING
    + """
import json, pathlib, signal

told = []
signal.signal(signal.SIGHUP, lambda *_: told.append(1))


class Handler(Answering):
    def do_GET(self):
        found = json.loads(pathlib.Path(os.environ["SKERRY_BINDINGS"]).read_text())["bindings"]
        token = pathlib.Path(os.environ["SKERRY_BINDING_MES_TOKEN_FILE"]).read_text()
        self.answer(200, json.dumps({"bindings": found, "token": token, "told": len(told), "pid": os.getpid()}))


serve(Handler)
"""
)
DOCUMENT = """
apiVersion: skerry/v1
kind: Application
metadata: {name: weigher}
spec:
  version: 1.0.0
  needs:
    - {name: scale, type: serial, on_change: {signal: HUP}}
    - {name: mes, type: http, labels: {plant: north}}
  components:
    - name: box
      bundle: {files: [{path: app.py, source: app.py}]}
      command: [python3, "${bundle}/app.py", "${binding.mes.url}"]
      ports: [{name: http}]
      probes: {startup: {http: {port: http, path: /}, period: 100ms, timeout: 2s, failures: 100}}
      stop: {grace: 2s}
"""
SITE = """
apiVersion: skerry/v1
kind: Site
metadata: {{name: harbour}}
spec:
  bindings:
    - {{name: scale, host: edge-1, serial: {{path: {path}}}}}
    - {{name: mes, labels: {{plant: north}}, http: {{url: "{url}"}}, secrets: {{token: mes-token}}}}
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, as a host has."""
    folder = Path("/dev/shm") / f"skerry-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.rule("BINDING-2", "BINDING-3", "BINDING-5")
def test_an_application_is_joined_where_it_can_be_and_told_when_its_device_is_pulled_out(
    fleet: TestFleet, memory: Path
) -> None:
    fleet.env["SKERRY_RUN_DIR"] = str(memory)
    ends = pty.openpty()
    path = os.ttyname(ends[1])
    fleet.run("apply", "-f", "-", stdin=SITE.format(path=path, url="http://mes:1/"))
    fleet.make_site("desert")
    fleet.run("secret", "set", "mes-token", stdin=TOKEN)
    agent, _ = fleet.add_agent("harbour", "edge-1"), fleet.add_agent("desert", "edge-2")
    release = fleet.folder / "weigher"
    release.mkdir()
    (release / "app.py").write_text(APP)
    (release / "weigher.yaml").write_text(DOCUMENT)
    fleet.run("release", "push", str(release / "weigher.yaml"))
    preview = fleet.run("release", "preview", "weigher@1.0.0")
    assert "1 site left out, for want of a binding:" in preview
    assert "desert: needs a binding for scale (serial): the site offers no serial" in preview
    fleet.run("rollout", "start", "weigher@1.0.0", "--sites", "*", "--name", "all", "--soak", "300ms")

    def told() -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(ask(agent.endpoint("weigher", "box")))
            return found
        return {}

    def log() -> str:
        return agent.log.read_text()[-4000:]

    fleet.until(lambda: fleet.rollout_state("all") == "succeeded", log)
    first = fleet.until(told, log)
    assert (first["token"], first["bindings"]["scale"]["state"]) == (TOKEN, "present")
    assert TOKEN not in json.dumps(first["bindings"])
    assert first["bindings"]["mes"]["url"] == "http://mes:1/"

    for end in ends:
        os.close(end)

    def told_with(need: str, **wanted: str) -> dict[str, Any]:
        found = told()
        seen = found.get("bindings", {}).get(need, {})
        return found if all(seen.get(key) == value for key, value in wanted.items()) else {}

    absent = fleet.until(lambda: told_with("scale", state="absent"), log)
    fleet.until(lambda: told()["told"] >= 1, log)
    assert absent["pid"] == first["pid"]
    fleet.until(lambda: "absent since" in fleet.run("describe", "site", "harbour"), log)
    assert "scale: scale (absent" in fleet.run("explain", "binding", "weigher", "--site", "harbour")

    fleet.run("apply", "-f", "-", stdin=SITE.format(path=path, url="http://mes:2/"))
    moved = fleet.until(lambda: told_with("mes", url="http://mes:2/"), log)
    fleet.until(lambda: told().get("pid") not in (None, first["pid"]), log)
    assert moved["token"] == TOKEN
