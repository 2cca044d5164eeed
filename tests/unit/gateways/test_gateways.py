"""Gateways against real servers: what they publish, write and refuse, and how they come back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from skerry.spec.application import Application
from skerry.spec.parsing import parse_documents
from skerry.testing.waiting import eventually_sync
from tests.unit.gateways.gateway_world import (
    EXAMPLE,
    PASSWORD,
    Broker,
    Gateway,
    Listener,
    end,
    free_port,
    need,
    process,
)

pytestmark = pytest.mark.broker
HERE = Path(__file__).parent


@pytest.fixture
def broker(tmp_path: Path) -> Generator[Broker]:
    need()
    made = Broker(tmp_path)
    with made.running():
        yield made


@pytest.fixture
def listener(broker: Broker) -> Generator[Listener]:
    made = Listener(broker, "press/#")
    yield made
    made.close()


def python(name: str, *arguments: str) -> tuple[str, ...]:
    return sys.executable, str(HERE / name), *arguments


@pytest.mark.rule("BINDING-6")
def test_opcua_values_reach_topics_and_only_writable_nodes_are_written(
    tmp_path: Path, broker: Broker, listener: Listener
) -> None:
    need("asyncua")
    port = free_port()
    nodes: dict[str, Any] = {
        "speed": {"node": "ns=2;s=Speed"},
        "reject": {"node": "ns=2;s=Reject", "type": "boolean", "writable": True},
        "fixed": {"node": "ns=2;s=Fixed", "type": "integer"},
        "lost": {"node": "ns=2;s=Lost"},
    }
    gateway = Gateway(tmp_path, broker, "opcua", {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "nodes": nodes})
    with gateway.running() as started:
        assert gateway.page("/readyz")[0] == 503  # nobody is there yet
        with process(*python("opcua_server.py", str(port))):
            speed = listener.until("press/speed", value=1.5, quality="good")
            assert datetime.fromisoformat(speed["source_time"]).tzinfo is not None
            listener.until("press/lost", value=None, quality="bad")
            assert gateway.page("/readyz")[0] == 200
            listener.publish("press/reject/set", {"value": True})
            listener.until("press/reject", value=True)
            listener.publish("press/fixed/set", 9)  # the server would take it, the site does not say so
            listener.publish("press/reject/set", {"value": "yes"})
            eventually_sync(lambda: gateway.metric("gateway_writes_refused_total") == 2, what="two refusals")
            assert listener.last["press/fixed"]["value"] == 7
            assert gateway.metric("gateway_writes_total") == 1
        listener.until("press/speed", value=1.5, quality="bad")
        with process(*python("opcua_server.py", str(port))):
            listener.until("press/speed", value=1.5, quality="good")
        assert listener.last["press/status"] == "online"
        assert end(started) == 0
        eventually_sync(lambda: listener.last["press/status"] == "offline", what="the farewell")


@pytest.mark.rule("BINDING-6")
def test_modbus_registers_reach_topics_and_only_writable_ones_are_written(
    tmp_path: Path, broker: Broker, listener: Listener
) -> None:
    need("pymodbus")
    port = free_port()
    registers: dict[str, Any] = {
        "heat": {"kind": "holding", "address": 1, "type": "int16", "scale": 0.1, "writable": True},
        "flow": {"kind": "holding", "address": 2, "type": "float32"},
        "count": {"kind": "input", "address": 4},
        "door": {"kind": "coil", "address": 1, "type": "bool", "writable": True},
        "far": {"kind": "holding", "address": 900},
    }
    binding = {"host": "127.0.0.1", "port": str(port), "unit": "1", "serial": "", "registers": registers}
    gateway = Gateway(tmp_path, broker, "modbus", binding)
    with gateway.running() as started:
        with process(*python("modbus_server.py", str(port))):
            listener.until("press/heat", value=-10.0, quality="good")
            listener.until("press/flow", value=1.0)
            listener.until("press/count", value=9)
            listener.until("press/door", value=True)
            listener.until("press/far", value=None, quality="bad")
            listener.publish("press/heat/set", 21.5)
            listener.publish("press/door/set", {"value": False})
            listener.until("press/heat", value=21.5)
            listener.until("press/door", value=False)
            listener.publish("press/count/set", 1)
            listener.publish("press/heat/set", 1e6)
            eventually_sync(lambda: gateway.metric("gateway_writes_refused_total") == 2, what="two refusals")
        listener.until("press/heat", value=21.5, quality="bad")
        with process(*python("modbus_server.py", str(port))):
            listener.until("press/heat", value=-10.0, quality="good")
        assert end(started) == 0


def _arguments_with(text: str) -> list[str]:
    """Return the command lines on this machine that have a text in them."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text in (line := path.read_text(errors="replace")):
                found.append(line)
    return found


@pytest.mark.rule("BINDING-3")
@pytest.mark.parametrize("kind", ("mpjpeg", "rtsp"))
def test_a_cameras_newest_picture_is_served_and_announced(
    tmp_path: Path, broker: Broker, listener: Listener, kind: str
) -> None:
    need(programs=("mosquitto", "ffmpeg"))
    port = free_port()
    password = str(tmp_path / "password")
    binding = {
        "url": f"{'rtsp' if kind == 'rtsp' else 'http'}://127.0.0.1:{port}/",
        "device": "",
        "username": "viewer",
        "secrets": {"password": password},
    }
    gateway = Gateway(tmp_path, broker, "camera", binding)
    with gateway.running() as started:
        assert gateway.page("/frame.jpg")[0] == 503
        server = python("rtsp_server.py" if kind == "rtsp" else "camera_server.py", str(port), kind)
        with process(*server):
            frame = listener.until("press/frame", quality="good")
            status, picture = gateway.page("/frame.jpg")
            assert (status, picture[:2], picture[-2:]) == (200, b"\xff\xd8", b"\xff\xd9")
            later = eventually_sync(
                lambda: (
                    found if (found := listener.last["press/frame"])["sequence"] > frame["sequence"] else None
                ),
                what="the next picture",
            )
            assert not _arguments_with(PASSWORD)
            shown = listener.until("press/picture", quality="good")
            assert hashlib.sha256(base64.b64decode(shown["jpeg"])).hexdigest() == shown["sha256"]
            assert len(later["sha256"]) == len(shown["sha256"])
        listener.until("press/frame", quality="bad")
        assert end(started) == 0


@pytest.mark.rule("BINDING-6")
def test_what_is_published_while_the_bus_is_away_is_sent_when_it_is_back(tmp_path: Path) -> None:
    need("pymodbus")
    port = free_port()
    broker = Broker(tmp_path)
    registers = {"count": {"kind": "input", "address": 4}}
    binding = {"host": "127.0.0.1", "port": str(port), "serial": "", "registers": registers}
    gateway = Gateway(tmp_path, broker, "modbus", binding)
    with process(*python("modbus_server.py", str(port))), gateway.running() as started:
        eventually_sync(lambda: gateway.metric("gateway_published_total") >= 1, what="the first value")
        assert gateway.page("/readyz") == (503, b"bus away\n")
        with broker.running():
            listener = Listener(broker, "press/#")
            try:
                listener.until("press/count", value=9)
            finally:
                listener.close()
        assert end(started) == 0


def test_a_gateway_without_its_binding_says_so(tmp_path: Path) -> None:
    need()
    gateway = Gateway(tmp_path, Broker(tmp_path), "modbus", {})
    command = ["other" if word == "source" else word for word in gateway.command]
    ended = subprocess.run(command, env=gateway.env, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert b"no binding other in" in ended.stderr


@pytest.mark.parametrize("kind", ("opcua", "modbus", "camera"))
def test_the_shipped_applications_are_right_and_need_what_they_serve(kind: str) -> None:
    (parsed,) = parse_documents((EXAMPLE / f"{kind}-gateway.yaml").read_text())
    assert isinstance(parsed.document, Application)
    spec = parsed.document.spec
    assert [need.type for need in spec.needs] == [kind]
    (topics,) = [word for word in spec.components[0].command if word.startswith("--topics=")]
    assert topics == f"--topics={kind}/${{binding.source.binding}}"
    assert spec.topics.publish == (f"{kind}/#",)
    assert spec.topics.subscribe == (() if kind == "camera" else (f"{kind}/+/+/set",))
