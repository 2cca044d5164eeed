"""The host's bus from a container with a network of its own: by TLS, by name, and by its own rights alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.podman_world import PYTHON, PodmanFleet
from tests.e2e.releases import ask

pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.broker, pytest.mark.timeout(300)]

# MQTT 3.1.1 by hand: the image has a Python and nothing else. Connects anew for each question.
TALKER = """
import http.server, os, pathlib, signal, socket, ssl, urllib.parse
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
bus = os.environ

def text(word):
    return len(word).to_bytes(2, "big") + word.encode()

def packet(kind, body):
    assert len(body) < 16384
    return bytes([kind, len(body) % 128 | 128, len(body) // 128]) + body

def connect():
    context = ssl.create_default_context(cafile=bus["SKERRY_BUS_CA"])
    raw = socket.create_connection((bus["SKERRY_BUS_HOST"], int(bus["SKERRY_BUS_PORT"])), timeout=5)
    tls = context.wrap_socket(raw, server_hostname=bus["SKERRY_BUS_HOST"])
    password = pathlib.Path(bus["SKERRY_BUS_PASSWORD_FILE"]).read_text()
    body = text("MQTT") + bytes([4, 0xC2, 0, 30]) + text("box") + text(bus["SKERRY_BUS_USER"]) + text(password)
    tls.sendall(packet(0x10, body))
    assert tls.recv(4) == bytes([0x20, 2, 0, 0]), "not let in"
    return tls

def ask(topic, word):
    with connect() as tls:
        stream = tls.makefile("rb")
        tls.sendall(packet(0x82, bytes([0, 1]) + text("plant/line1/#") + bytes([0])))
        assert stream.read(5) == bytes([0x90, 3, 0, 1, 0]), "not allowed to read"
        tls.sendall(packet(0x30, text(topic) + word.encode()))
        tls.sendall(packet(0x30, text("plant/line1/end") + b"end"))
        came = []
        while not came or not came[-1].endswith(" end"):
            stream.read(1)
            body = stream.read(stream.read(1)[0])
            split = 2 + int.from_bytes(body[:2], "big")
            came.append(body[2:split].decode() + " " + body[split:].decode())
        return ";".join(came)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        topic, _, word = urllib.parse.unquote(self.path[1:]).partition("=")
        try:
            status, said = 200, ask(topic, word) if word else bus["SKERRY_BUS_URL"]
        except (OSError, AssertionError) as error:
            status, said = 503, repr(error)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(said.encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def talker() -> dict[str, Any]:
    """Return a component that publishes what it is asked to, and says what came to it."""
    return {
        "name": "box",
        "image": {"source": "oci-archive:python.tar"},
        "command": [PYTHON, "-c"],
        "args": [TALKER],
        "container": {"user": "10001"},
        "ports": [{"name": "http", "port": 8080}],
        "probes": {"startup": {"http": {"port": "http", "path": "/"}, "period": "200ms", "failures": 300}},
        "stop": {"grace": "1s"},
    }


@pytest.fixture
def memory(podman_fleet: PodmanFleet) -> Iterator[Path]:
    folder = Path("/dev/shm") / f"skerry-podman-bus-{os.getpid()}"
    folder.mkdir()
    podman_fleet.env["SKERRY_RUN_DIR"] = str(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.rule("BUS-1", "BUS-4")
def test_a_container_is_on_the_bus_by_tls_with_its_own_rights(
    podman_fleet: PodmanFleet, memory: Path
) -> None:
    fleet = podman_fleet
    agent = fleet.one_host()
    topics: dict[str, Any] = {"publish": ["plant/line1/#"], "subscribe": ["plant/line1/#"]}
    fleet.push_shop("1.0.0", talker(), topics=topics)
    fleet.bring("shop@1.0.0")

    def said(question: str) -> str:
        return ask(agent.endpoint("shop", "box"), question)

    url = fleet.until(lambda: said("/"))
    assert url.startswith("mqtts://bus.host.site.internal:")
    port = int(url.rpartition(":")[2])
    seen = fleet.until(lambda: said("/plant/line1/count=7"), lambda: agent.log.read_text()[-4000:])
    assert seen == "plant/line1/count 7;plant/line1/end end"
    assert said("/plant/orders=beyond") == "plant/line1/end end"
    (address,) = listening(port)
    assert address.startswith("10."), "at the address of the container's network and nowhere else"

    container = fleet.only_container("box")
    agent.kill()
    agent.start()
    fleet.until(lambda: said("/plant/line1/count=8").startswith("plant/line1/count 8"))
    assert fleet.only_container("box") == container


def listening(port: int) -> list[str]:
    """Return the addresses of this machine at which somebody listens at a port."""
    found: list[str] = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        address, _, number = words[1].partition(":")
        if words[3] == "0A" and int(number, 16) == port:
            found.append(".".join(str(byte) for byte in reversed(bytes.fromhex(address))))
    return found
