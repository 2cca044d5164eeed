"""Secrets of a container on a real engine: files of its user in memory, and nowhere in what the engine shows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.podman_world import PYTHON, PodmanFleet
from tests.e2e.releases import ask
from tests.e2e.test_secrets import everything

pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.secrets, pytest.mark.timeout(300)]

OLD, NEW = "old-canary-of-the-box-51aa", "new-canary-of-the-box-07cd"
USER = 10001

READER = """
import http.server, json, os, pathlib, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
folder = pathlib.Path("${secrets}")
told = []
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        seen = {path.name: [path.read_text()[:3], oct(path.stat().st_mode & 0o777), path.stat().st_uid]
                for path in folder.iterdir()}
        self.answer({"user": os.getuid(), "files": seen, "told": len(told)})
    def do_POST(self):
        told.append(self.path)
        self.answer({})
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def reader(**use: Any) -> dict[str, Any]:
    """Return a component that shows the first letters of its secrets, whose they are, and how often it was told."""
    change = {"http": {"port": "http", "path": "/reload"}}
    return {
        "name": "box",
        "image": {"source": "oci-archive:python.tar"},
        "command": [PYTHON, "-c"],
        "args": [READER],
        "container": {"user": str(USER)},
        "ports": [{"name": "http", "port": 8080}],
        "secrets": [{"name": "password", "path": "password", "on_change": change, "overlap": "1h"} | use],
        "probes": {"startup": {"http": {"port": "http", "path": "/"}, "period": "200ms", "failures": 300}},
        "stop": {"grace": "1s"},
    }


@pytest.fixture
def memory(podman_fleet: PodmanFleet) -> Iterator[Path]:
    folder = Path("/dev/shm") / f"skerry-podman-{os.getpid()}"
    folder.mkdir()
    podman_fleet.env["SKERRY_RUN_DIR"] = str(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.rule("SECRET-1", "SECRET-3")
def test_a_container_s_user_reads_its_secrets_and_is_told_of_new_ones_without_a_restart(
    podman_fleet: PodmanFleet, memory: Path
) -> None:
    fleet = podman_fleet
    agent = fleet.one_host()
    variable = reader()
    variable["secrets"] = [{"name": "password", "env": "PASSWORD"}]
    path = fleet.releases / "refused.yaml"
    metadata = {"apiVersion": "skerry/v1", "kind": "Application", "metadata": {"name": "shop"}}
    path.write_text(json.dumps({**metadata, "spec": {"version": "0.1.0", "components": [variable]}}))
    refused = fleet.try_run("release", "push", str(path))
    assert refused.returncode == 2
    assert "a container is given no secret in its environment" in refused.stderr

    fleet.run("secret", "set", "password", stdin=OLD)
    fleet.push_shop("1.0.0", reader())
    fleet.bring("shop@1.0.0")

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(agent.endpoint("shop", "box")) or "{}")
        return found

    seen = fleet.until(shown)
    owned = [oct(0o400), USER] if os.geteuid() == 0 else [oct(0o444), seen["files"]["password"][2]]
    assert seen == {"user": USER, "files": {"password": ["old", *owned]}, "told": 0}
    container = fleet.only_container("box")
    fleet.run("secret", "rotate", "password", stdin=NEW)
    fleet.until(lambda: shown().get("told") == 1, lambda: agent.log.read_text()[-3000:])
    seen = shown()
    assert seen["files"] == {"password": ["new", *owned], "password.previous": ["old", *owned]}
    assert fleet.only_container("box") == container, "it was told, and not started anew"
    everywhere = (fleet.engine.podman("inspect", container) + fleet.engine.podman("logs", container)).encode()
    everywhere += everything(fleet.folder)
    assert [value for value in (OLD, NEW) if value.encode() in everywhere] == []
    agent.stop()
    assert "ended shop" in fleet.run("agent", "down", "--data", str(agent.data))
    assert list(memory.iterdir()) == []
