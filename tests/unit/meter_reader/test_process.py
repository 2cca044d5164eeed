"""The example's process: its settings, its signals, and what it says when something is missing."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.meter_reader.building import EXAMPLE, need_libraries

need_libraries()

from meter_reader.settings import SettingsError, parse_settings  # noqa: E402

PNG = "image/png"


def test_settings_come_from_the_environment_and_are_checked() -> None:
    env = {"SKERRY_PORT_HTTP": "8080", "SKERRY_MODEL_DIGITS": "models/digits"}
    settings = parse_settings(env)
    assert (settings.host, settings.port, settings.model_dir) == ("127.0.0.1", 8080, Path("models/digits"))
    assert parse_settings({**env, "SKERRY_HOST": "::1"}).host == "::1"
    for port in ("", "0", "65536", "-1", "http", "²"):
        with pytest.raises(SettingsError, match="SKERRY_PORT_HTTP"):
            parse_settings({**env, "SKERRY_PORT_HTTP": port})
    with pytest.raises(SettingsError, match="SKERRY_MODEL_DIGITS"):
        parse_settings({"SKERRY_PORT_HTTP": "8080"})


def test_the_process_serves_and_ends_cleanly_on_sigterm(built: Path, counter_png: bytes) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    env = {
        **os.environ,
        "PYTHONPATH": str(EXAMPLE / "app"),
        "SKERRY_PORT_HTTP": str(port),
        "SKERRY_MODEL_DIGITS": str(built / "1.1.0" / "int8"),
    }
    process = subprocess.Popen([sys.executable, "-m", "meter_reader"], env=env, stderr=subprocess.DEVNULL)
    try:
        assert request_patiently(port, "GET", "/healthz") == 200
        assert request_patiently(port, "POST", "/infer", counter_png) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def test_a_hangup_brings_the_model_of_the_day_and_a_refused_one_fails_the_health_probe(
    built: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    link = tmp_path / "model"
    link.symlink_to(built / "1.0.0" / "int8")
    env = {
        **os.environ,
        "PYTHONPATH": str(EXAMPLE / "app"),
        "SKERRY_PORT_HTTP": str(port),
        "SKERRY_MODEL_DIGITS": str(link),
    }
    process = subprocess.Popen([sys.executable, "-m", "meter_reader"], env=env, stderr=subprocess.DEVNULL)
    try:
        assert request_patiently(port, "GET", "/healthz") == 200
        for version, status in (("1.1.0", 200), ("1.2.0", 503), ("1.0.0", 200)):
            (tmp_path / "new").symlink_to(built / version / "int8")
            (tmp_path / "new").rename(link)
            process.send_signal(signal.SIGHUP)
            # The signal is there before the request, and is handled before anything else.
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            body = json.loads(answer.read())
            connection.close()
            assert answer.status == status
            assert status == 503 or body["model"]["version"] == version
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def request_patiently(port: int, method: str, path: str, body: bytes = b"") -> int:
    """The status of one request, asked again until somebody listens."""
    give_up = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request(method, path, body, {"content-type": PNG})
            return connection.getresponse().status
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def test_the_process_says_what_its_environment_lacks() -> None:
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(EXAMPLE / "app")}
    command = [sys.executable, "-m", "meter_reader"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "SKERRY_PORT_HTTP is not set" in done.stderr


def test_a_bundle_for_another_interpreter_says_so(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "app", tmp_path / "app")
    note = tmp_path / "app" / "meter_reader" / "built-for.json"
    note.write_text('{"python": "3.99", "machine": "abacus"}', encoding="utf-8")
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(tmp_path / "app")}
    command = [sys.executable, "-m", "meter_reader"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "built for Python 3.99 on abacus, this is Python 3." in done.stderr
