"""The SDK of applications: it needs the standard library alone, and keeps nobody waiting, whoever listens or not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from skerry import sdk
from skerry.sdk import Predictions, Value
from skerry.spec.predictions import PredictionsBody
from skerry.testing.waiting import eventually_sync


class Host(ThreadingHTTPServer):
    """Somebody who listens, and answers with the statuses that are stated, the last of them for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[PredictionsBody] = []
        self.statuses = [200]
        self.turn = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mark"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        host = self.server
        assert isinstance(host, Host)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with host.turn:
            host.bodies.append(msgspec.json.decode(body, type=PredictionsBody))
            status = host.statuses.pop(0) if len(host.statuses) > 1 else host.statuses[0]
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.rule("QUALITY-4")
def test_without_a_host_nothing_is_done() -> None:
    predictions = Predictions("")
    for _ in range(100_000):
        predictions.record("1", label="ok")
    assert predictions.flush()
    assert (predictions.dropped, predictions.sent) == (0, 0)
    predictions.close()


@pytest.mark.rule("QUALITY-4")
def test_a_listener_that_never_answers_costs_what_is_beyond_the_queue() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        predictions = Predictions(f"http://127.0.0.1:{listener.getsockname()[1]}/mark", most=500)
        for number in range(2000):
            predictions.record(str(number), label="ok")
        assert predictions.dropped == 1500
        assert not predictions.flush(0.05)
        predictions.close(0.05)
        predictions.record("after")
        assert predictions.dropped == 1501


@pytest.mark.rule("QUALITY-1")
def test_what_was_not_taken_comes_again_under_the_same_name(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "TRY_AGAIN_S", 0.01)
    monkeypatch.setattr(sdk, "SEND_EVERY_S", 600.0)  # both go at once: when they are asked for
    host.statuses = [503, 500, 200]
    predictions = Predictions(host.url)
    predictions.record("1", label="ok", score=0.5)
    predictions.label("1", "bad")
    assert predictions.flush(60)
    assert predictions.sent == 2
    assert len({body.batch for body in host.bodies}) == 1
    assert len(host.bodies) == 3
    assert [one.id for one in host.bodies[-1].labels] == ["1"]
    predictions.close()


@pytest.mark.rule("QUALITY-4")
def test_what_the_host_will_never_take_is_counted_and_the_next_goes_on(host: Host) -> None:
    host.statuses = [400, 200]
    predictions = Predictions(host.url)
    predictions.record("1")
    assert eventually_sync(lambda: predictions.refused == 1)
    predictions.record("2")
    assert eventually_sync(lambda: predictions.sent == 1)
    predictions.close()


def test_whatever_is_recorded_the_body_is_one_that_hosts_take(host: Host) -> None:
    predictions = Predictions(host.url, model="ocr" * 100)
    strange: dict[str, Value] = {
        "": 1,
        "9": True,
        "a b": "x" * 999,
        "ok": float("inf"),
        "big": 10**400,
        **{f"f{n}": n for n in range(99)},
    }
    predictions.record("x" * 999, label="\ud800" * 999, score=float("nan"), features=strange)
    predictions.record(score=1e308)
    predictions.label("y" * 999, "z" * 999)
    predictions.label("", "nobody")
    assert predictions.flush(60)
    predictions.close()
    first, second = (one for body in host.bodies for one in body.predictions)
    assert (len(first.id), len(second.id)) == (128, 0)
    assert first.features["_9"] == "True"
    assert "ok" not in first.features
    assert second.score == 1e300


def test_the_file_is_all_that_an_application_needs(host: Host, tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(Path(sdk.__file__).read_text())
    program = "from telling import Predictions; p = Predictions(); p.record('1', label='ok'); p.close(60)"
    environment = {"SKERRY_TELEMETRY_URL": host.url, "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
        env=environment,
        timeout=120,
        check=True,
        capture_output=True,
    )
    assert done.stderr == b""
    assert [one.id for one in host.bodies[0].predictions] == ["1"]
