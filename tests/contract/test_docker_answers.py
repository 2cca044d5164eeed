"""What the client makes of answers that Podman does not give: Docker's, and those of engines that are not well."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.docker_create import body_of, failure_of
from skerry.adapters.docker_engine import EngineFacts
from skerry.adapters.docker_events import is_important
from skerry.adapters.docker_execute import payloads
from skerry.adapters.docker_images import DockerImages
from skerry.adapters.docker_libpod import libpod_body_of, needs_libpod
from skerry.adapters.docker_names import StopMark, is_safe_id, read_mark
from skerry.adapters.engine_api import EngineApi, find_engine
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.runtime import ContainerSpec, Engine, InstanceSpec, Limits
from skerry.testing.images import make_image

Say = Callable[[str, str], tuple[int, bytes]]
DOCKER = Engine(
    name="docker", version="28.0.1", can=frozenset({"containers", "networks", "devices", "cdi", "pids"})
)
PODMAN = Engine(name="podman", version="4.3.1", can=DOCKER.can)


class StubEngine(socketserver.ThreadingUnixStreamServer):
    """Says what a test says, by method and path."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of callers that hang up: some tests do."""

    def __init__(self, path: Path, say: Say) -> None:
        self.say = say
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        engine = self.server
        assert isinstance(engine, StubEngine)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        status, content = engine.say(self.command, self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - names of the library

    def log_message(self, format: str, *args: object) -> None:
        return

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Callable[[Say], Path]]:
    servers: list[StubEngine] = []

    def serve(say: Say, name: str = "engine.sock") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        server = StubEngine(path, say)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return path

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_engine_that_does_not_answer_costs_no_more_than_the_limit(stub: Callable[[Say], Path]) -> None:
    goes_on = threading.Event()

    def say(method: str, path: str) -> tuple[int, bytes]:
        goes_on.wait(30)
        return 200, b""

    api = EngineApi(stub(say))
    begun = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        api.call("GET", "/version", timeout_s=0.2)
    goes_on.set()
    assert caught.value.code == "runtime.engine_away"
    assert time.monotonic() - begun < 10


def test_an_answer_without_end_is_refused(stub: Callable[[Say], Path]) -> None:
    api = EngineApi(stub(lambda method, path: (200, bytes(9 << 20))))
    with pytest.raises(Unavailable) as caught:
        api.call("GET", "/version")
    assert caught.value.code == "runtime.answer_too_long"


def test_an_engine_that_finds_the_version_too_old_names_its_minimum(stub: Callable[[Say], Path]) -> None:
    def say(method: str, path: str) -> tuple[int, bytes]:
        if path.startswith("/v1.41/"):
            told = "client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade"
            return 400, json.dumps({"message": told}).encode()
        return 200, b'{"was": "1.44"}'

    api = EngineApi(stub(say))
    assert api.call("GET", "/info").json() == {"was": "1.44"}
    assert api.call("GET", "/info").status == 200


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    (
        ("write /layer.tar: no space left on device", Unavailable, "disk.full"),
        ("invalid tar header", Rejected, "image.malformed"),
    ),
)
async def test_a_failed_load_with_status_200_is_a_failure(
    stub: Callable[[Say], Path], tmp_path: Path, said: str, kind: type[Exception], code: str
) -> None:
    lines = [{"stream": "Loading layer"}, {"errorDetail": {"message": said}, "error": said}]

    def say(method: str, path: str) -> tuple[int, bytes]:
        if "/images/load" in path:
            return 200, b"\r\n".join(json.dumps(line).encode() for line in lines)
        return (200, b"{}") if "/info" in path else (404, b'{"message": "no such image"}')

    image = make_image(tmp_path / "image")
    images = DockerImages(stub(say), owner="docker")
    with pytest.raises(kind) as caught:
        await images.load(image.parts, image.blob)
    assert getattr(caught.value, "code", "") == code


def test_docker_is_known_by_its_components(stub: Callable[[Say], Path]) -> None:
    version = {"Version": "28.0.1", "Components": [{"Name": "Engine"}, {"Name": "containerd"}]}
    info = {
        "SecurityOptions": ["name=seccomp", "name=rootless"],
        "PidsLimit": True,
        "CDISpecDirs": ["/etc/cdi"],
    }

    def say(method: str, path: str) -> tuple[int, bytes]:
        return 200, json.dumps(version if path.endswith("/version") else info).encode()

    engine = EngineFacts(EngineApi(stub(say))).engine()
    assert (engine.name, engine.version, engine.rootless) == ("docker", "28.0.1", True)
    assert {"cdi", "pids", "networks"} <= engine.can


def spec(**changes: Any) -> tuple[InstanceSpec, ContainerSpec]:
    container = ContainerSpec(image="sha256:" + "1" * 64, **changes)
    limits = Limits(memory_bytes=1 << 20, log_bytes=100_000)
    return (
        InstanceSpec(
            id="a.b.c", command=("x",), env={}, directory=Path("/"), limits=limits, container=container
        ),
        container,
    )


@pytest.mark.parametrize(
    ("name", "version", "able"),
    (
        ("docker", "20.10.24", True),
        ("podman", "4.3.1", False),
        ("podman", "4.5.0", True),
        ("podman", "5.4.2", True),
    ),
)
def test_containers_are_told_of_a_dns_only_where_they_still_find_each_other(
    stub: Callable[[Say], Path], name: str, version: str, able: bool
) -> None:
    component = "Podman Engine" if name == "podman" else "Engine"
    said = {"Version": version, "Components": [{"Name": component}]}
    engine = EngineFacts(
        EngineApi(stub(lambda _, path: (200, json.dumps(said if path.endswith("/version") else {}).encode())))
    ).engine()
    assert ("dns" in engine.can) == able
    for network, told in (("skerry-app-1", able), ("host", False), ("none", False)):
        body = body_of(*spec(network=network, dns=("10.0.0.1", "10.0.0.2")), owner="me", engine=engine)
        addresses = ["10.0.0.1", "10.0.0.2"] if told else None
        assert body["HostConfig"].get("Dns") == addresses
        by_name = spec(network=network, dns=("10.0.0.1", "10.0.0.2"))
        assert libpod_body_of(*by_name, name="n", owner="me", engine=engine).get("dns_server") == addresses


def test_docker_keeps_two_log_files_and_takes_devices_by_name() -> None:
    body = body_of(*spec(devices=("nvidia.com/gpu=0", "/dev/null")), owner="me", engine=DOCKER)
    config = body["HostConfig"]
    assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "200000", "max-file": "2"}}
    assert config["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]
    assert [device["PathOnHost"] for device in config["Devices"]] == ["/dev/null"]
    assert not needs_libpod(spec(devices=("nvidia.com/gpu=0",))[1], DOCKER)
    assert needs_libpod(spec(devices=("nvidia.com/gpu=0",))[1], PODMAN)


@pytest.mark.parametrize(
    ("said", "code"),
    (
        ('exec: "x": executable file not found in $PATH: unknown', "runtime.command_missing"),
        (
            "crun: executable file `x` not found in $PATH: No such file or directory",
            "runtime.command_missing",
        ),
        ("No command specified", "runtime.command_missing"),
        ("exec /bin/x: exec format error", "runtime.not_executable"),
        ("driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", "runtime.port_taken"),
        ("mkdir /var/lib/docker/x: no space left on device", "disk.full"),
        ("Minimum memory limit allowed is 6MB", "runtime.limit_impossible"),
        ("CDI device injection failed: unresolvable CDI devices v.com/d=1", "runtime.device_missing"),
        ("the moon is full", "runtime.engine_failed"),
    ),
)
def test_what_engines_say_is_told_apart(said: str, code: str) -> None:
    assert failure_of(said, "one").code == code


@pytest.mark.parametrize("size", (1, 3, 8, 11, 1000))
def test_a_multiplexed_stream_is_read_however_it_is_cut(size: int) -> None:
    pieces = (b"one", b"", b"two\n" * 50, b"3")
    stream = b"".join(bytes((1, 0, 0, 0)) + len(piece).to_bytes(4, "big") + piece for piece in pieces)
    cut = [stream[first : first + size] for first in range(0, len(stream), size)]
    assert b"".join(payloads(cut)) == b"".join(pieces)


def test_events_of_both_engines_count_but_not_those_of_commands() -> None:
    for action in ("start", "die", "died", "destroy", "remove", "rename", "oom", "stop", "cleanup"):
        assert is_important(json.dumps({"Action": action}).encode())
    for action in (
        "exec_create: true",
        "exec_start: x",
        "exec_die",
        "exec_died",
        "health_status: healthy",
        "top",
    ):
        assert not is_important(json.dumps({"Action": action}).encode())
    assert not is_important(b"\r\n")


def test_a_mark_in_a_name_is_read_as_it_was_written() -> None:
    mark = StopMark("0a1b2c3d", 15, 123_456_789)
    assert read_mark(f"skerry-me-app.web.x{mark.ending}", "skerry-me-app.web.x") == mark
    assert read_mark("skerry-me-app.web.x", "skerry-me-app.web.x") is None
    assert read_mark("skerry-me-app.web.x.stop-zz", "skerry-me-app.web.x") is None
    assert is_safe_id("app.web.0123456789ab")


def pong(method: str, path: str) -> tuple[int, bytes]:
    return 200, b"OK"


def test_podman_is_found_before_docker_and_only_if_it_answers(
    stub: Callable[..., Path], tmp_path: Path
) -> None:
    assert find_engine({}, tmp_path) is None
    docker = stub(pong, "var/run/docker.sock")
    assert find_engine({}, tmp_path) == docker
    # A socket that nobody serves any more.
    dead = stub(pong, "run/podman/podman.sock")
    dead.unlink()
    socketserver.UnixStreamServer(str(dead), BaseHTTPRequestHandler).server_close()
    assert find_engine({}, tmp_path) == docker
    own = stub(pong, "run/user/7/podman/podman.sock")
    assert find_engine({"XDG_RUNTIME_DIR": "/run/user/7"}, tmp_path) == own
    dead.unlink()
    podman = stub(pong, "run/podman/podman.sock")
    assert find_engine({"XDG_RUNTIME_DIR": "/run/user/7"}, tmp_path) == podman
    named = stub(pong, "named.sock")
    assert find_engine({"DOCKER_HOST": f"unix://{named}"}, tmp_path) == named
    assert find_engine({"CONTAINER_HOST": f"unix://{named}"}, tmp_path) == named
    assert find_engine({"DOCKER_HOST": "tcp://elsewhere:2375"}, tmp_path) == podman
