"""Gateways as processes, with a real broker, OPC UA server, Modbus unit and camera beside them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest

from skerry.testing.waiting import eventually_sync

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "gateways"
PASSWORD = "geheim-7f31"


def need(*libraries: str, programs: tuple[str, ...] = ("mosquitto",)) -> None:
    """Let a test skip itself where something is not installed."""
    for library in ("paho", *libraries):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    for program in programs:
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, env: dict[str, str] | None = None) -> Generator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block."""
    started = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        assert started.stderr is not None
        started.stderr.close()


class Broker:
    """A mosquitto that lets one user in."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._config = folder / "mosquitto.conf"
        passwords = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "app", PASSWORD], check=True)
        passwords.chmod(0o644)
        lines = f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
        self._config.write_text(lines + f"user {os.environ.get('USER', 'root')}\n")

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "mosquitto"
        with process(program, "-c", str(self._config)):
            eventually_sync(self._answers, what="the broker")
            yield

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class Listener:
    """An independent client of the broker that keeps what it hears, by topic."""

    def __init__(self, broker: Broker, pattern: str) -> None:
        from paho.mqtt.client import Client, MQTTMessage
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.last: dict[str, Any] = {}
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="listener")
        self._client.username_pw_set("app", PASSWORD)

        def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
            text = message.payload.decode()
            self.last[message.topic] = json.loads(text) if text.startswith("{") else text

        def on_connect(client: Client, *_: object) -> None:
            client.subscribe(pattern, qos=1)

        self._client.on_message = on_message
        self._client.on_connect = on_connect
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def publish(self, topic: str, value: Any) -> None:
        self._client.publish(topic, json.dumps(value), qos=1).wait_for_publish(10)

    def until(self, topic: str, **wanted: Any) -> Any:
        """Wait for a message with these fields."""

        def look() -> Any:
            found = self.last.get(topic)
            if not isinstance(found, dict):
                return None
            message = cast("dict[str, Any]", found)
            return message if all(message.get(key) == value for key, value in wanted.items()) else None

        return eventually_sync(look, what=f"{topic} with {wanted}, heard {self.last}")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Gateway:
    """A gateway as its host would start it."""

    def __init__(self, folder: Path, broker: Broker, kind: str, binding: dict[str, Any]) -> None:
        self.port = free_port()
        file = folder / "bindings.json"
        file.write_text(json.dumps({"bindings": {"source": binding}}))
        password = folder / "password"
        password.write_text(PASSWORD + "\n")
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(EXAMPLE / "app"),
            "SKERRY_BINDINGS": str(file),
            "SKERRY_BUS_URL": f"mqtt://127.0.0.1:{broker.port}",
            "SKERRY_BUS_USER": "app",
            "SKERRY_BUS_PASSWORD_FILE": str(password),
            "SKERRY_HOST_NAME": "edge",
        }
        self.command = [
            sys.executable,
            "-m",
            "skerry_gateways",
            kind,
            "--need",
            "source",
            "--topics",
            "press",
        ]
        self.command += ["--port", str(self.port), "--period", "0.1"]

    @contextlib.contextmanager
    def running(self) -> Generator[subprocess.Popen[bytes]]:
        with process(*self.command, env=self.env) as started:
            eventually_sync(lambda: self.page("/healthz")[0] == 200, what="the gateway")
            yield started

    def page(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def metric(self, name: str) -> float:
        lines = self.page("/metrics")[1].decode().splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def end(started: subprocess.Popen[bytes]) -> int:
    """End a gateway as its host does, and return its exit code."""
    started.send_signal(signal.SIGTERM)
    return started.wait(timeout=15)
