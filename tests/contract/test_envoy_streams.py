"""What goes through the real proxy while its table changes: requests, WebSockets, gRPC and plain connections."""

from __future__ import annotations

import asyncio
import base64
import queue
import secrets
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from skerry.adapters.envoy_proxy import find_program
from skerry.ports.proxy import Backend, Entry, ProxyTable
from skerry.spec.ingress import Route
from tests.contract.proxy_world import EnvoyWorld, free_port

pytestmark = pytest.mark.envoy

READER, PRESS = "reader.site.internal", "press.site.internal"
REQUESTS = 5000
CLIENTS = 8


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EnvoyWorld]:
    if find_program() is None:
        pytest.skip("needs Envoy: the extra ingress, or envoy on PATH")
    one = EnvoyWorld(tmp_path)
    (tmp_path / "ca.pem").write_bytes(one.certificate.trust)
    try:
        yield one
    finally:
        await one.close()


def entry(name: str, backend: Backend, **options: Any) -> Entry:
    made = Route(name="main", component="web", port="http", **options)
    return Entry(name.partition(".")[0], made, (name,), backend.id)


async def serve(world: EnvoyWorld, *entries: Entry, backends: tuple[Backend, ...]) -> None:
    await world.proxy.serve(ProxyTable(world.ports, "skerry.internal", entries, backends, world.certificate))


@pytest.mark.rule("INGRESS-6")
async def test_not_one_of_five_thousand_requests_fails_while_releases_take_over_from_each_other(
    world: EnvoyWorld, tmp_path: Path
) -> None:
    """The client is curl: it keeps connections, checks the certificate, and counts what fails."""
    backends = [world.backend(f"reader/main/{number}") for number in range(2)]
    await serve(world, entry(READER, backends[0]), backends=tuple(backends))
    clients = [asyncio.create_task(asyncio.to_thread(_curl, world, tmp_path)) for _ in range(CLIENTS)]
    switches = 0
    while not all(client.done() for client in clients):
        switches += 1
        # As an agent does it: the old one is there until nothing leads to it any more, and then is not.
        new = backends[switches % 2]
        await serve(world, entry(READER, new), backends=tuple(backends))
        await serve(world, entry(READER, new), backends=(new,))
        await asyncio.sleep(0.05)  # so that requests come between the switches as well
    statuses = [status for client in clients for status in client.result()]
    assert (len(statuses), set(statuses)) == (REQUESTS, {"200"})
    assert switches >= 5


def _curl(world: EnvoyWorld, folder: Path) -> list[str]:
    url = f"https://{READER}:{world.ports.https}/[1-{REQUESTS // CLIENTS}]"
    done = subprocess.run(
        ["curl", "-sS", "--cacert", folder / "ca.pem", "--resolve", f"{READER}:{world.ports.https}:127.0.0.1",
         "-o", "/dev/null", "-w", "%{http_code}\n", url],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.rule("INGRESS-6")
async def test_open_streams_do_not_notice_that_another_route_changes(world: EnvoyWorld) -> None:
    with _web_socket_server() as ws_port, _grpc_server() as grpc_port, _echo_server() as raw_port:
        ws, rpc = Backend("reader/ws/1", ws_port), Backend("press/main/1", grpc_port, http2=True)
        raw = Backend("reader/raw/1", raw_port)
        listen = free_port()
        mine = (
            entry(READER, ws),
            entry(PRESS, rpc, protocol="grpc"),
            entry(READER, raw, protocol="tcp", listen=listen, tls="plain"),
        )
        await serve(world, *mine, backends=(ws, rpc, raw))
        with (
            await asyncio.to_thread(_web_socket, world) as socket_,
            _chat(world) as chat,
            socket.create_connection(("127.0.0.1", listen), 10) as line,
        ):
            await asyncio.to_thread(_say, socket_, chat, line)
            other = world.backend("other/main/1")
            for name in ("/x", "/y"):
                await serve(world, *mine, entry(READER, other, path=name), backends=(ws, rpc, raw, other))
                await asyncio.to_thread(_say, socket_, chat, line)
            await serve(world, *mine, backends=(ws, rpc, raw))
            await asyncio.to_thread(_say, socket_, chat, line)


@pytest.mark.rule("INGRESS-1")
async def test_what_is_for_the_host_alone_is_not_reached_from_another_address(world: EnvoyWorld) -> None:
    one = world.backend("reader/main/1")
    await serve(world, entry(READER, one, tls="plain", expose="host"), backends=(one,))
    outside = _other_address()
    with socket.create_connection(("127.0.0.1", world.ports.http), 10):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, world.ports.http), 10)
    both = (entry(READER, one, tls="plain", expose="host"), entry(PRESS, one, tls="plain"))
    await serve(world, *both, backends=(one,))
    for address, name, status in (
        ("127.0.0.1", READER, b"200"), ("127.0.0.1", PRESS, b"200"),
        (outside, PRESS, b"200"), (outside, READER, b"404"),
    ):  # fmt: skip
        assert await asyncio.to_thread(_status, address, world.ports.http, name) == status, (address, name)


@pytest.mark.rule("INGRESS-2")
async def test_a_path_cannot_be_written_in_another_way_to_get_around_its_route(world: EnvoyWorld) -> None:
    from skerry.spec.ingress import RouteAuth

    one = world.backend("reader/main/1")
    locked = Route(
        name="locked", component="web", port="http", path="/locked", expose="host", tls="plain",
        auth=RouteAuth(token="key"),
    )  # fmt: skip
    entries = entry(READER, one, tls="plain"), Entry("reader", locked, (READER,), one.id, b"s3cret")
    await serve(world, *entries, backends=(one,))
    for path in (
        "/locked",
        "/locked/",
        "/%6cocked",
        "//locked",
        "/a/../locked",
        "/./locked/x",
        "/a/%2e%2e/locked",
    ):
        status = await asyncio.to_thread(_status, "127.0.0.1", world.ports.http, READER, path)
        assert status == b"401", path
    for path in ("/a/..%2flocked", "/a%5c..%5clocked"):
        status = await asyncio.to_thread(_status, "127.0.0.1", world.ports.http, READER, path)
        assert status != b"200", path


def _status(address: str, port: int, name: str, path: str = "/") -> bytes:
    with socket.create_connection((address, port), 10) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        return line.makefile("rb").readline().split()[1]


def _other_address() -> str:
    """Return an address of this machine that is not the loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent: documentation addresses, RFC 5737
        except OSError:
            pytest.skip("this machine has no address but the loopback one")
        return str(probe.getsockname()[0])


def _say(web_socket: ssl.SSLSocket, chat: _Chat, line: socket.socket) -> None:
    """Send something over each stream, and have it back."""
    word = secrets.token_hex(8).encode()
    mask = secrets.token_bytes(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(word))
    web_socket.sendall(bytes((0x82, 0x80 | len(word))) + mask + masked)
    assert _exactly(web_socket, 2 + len(word))[2:] == word
    assert chat.say(word) == word
    line.sendall(word)
    assert _exactly(line, len(word)) == word


def _exactly(line: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = line.recv(size - len(content))
        assert part, "the stream ended"
        content += part
    return content


# ── WebSocket, RFC 6455 ──────────────────────────────────────────────────────────────────────────────


def _web_socket(world: EnvoyWorld) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=world.certificate.trust.decode())
    plain = socket.create_connection(("127.0.0.1", world.ports.https), 10)
    line = context.wrap_socket(plain, server_hostname=READER)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    line.sendall(
        f"GET /live HTTP/1.1\r\nHost: {READER}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(line, 1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return line


@contextmanager
def _web_socket_server() -> Generator[int]:
    """Serve connections that answer each short binary message with the same."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n")
        while True:
            _, size = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            masked = await reader.readexactly(size & 0x7F)
            word = bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))
            writer.write(bytes((0x82, len(word))) + word)

    with _loop_server(talk) as port:
        yield port


@contextmanager
def _echo_server() -> Generator[int]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(4096):
            writer.write(content)

    with _loop_server(talk) as port:
        yield port


@contextmanager
def _loop_server(talk: Any) -> Generator[int]:
    """Serve in the loop of the test."""
    ready = socket.create_server(("127.0.0.1", 0))
    port = int(ready.getsockname()[1])

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    task = asyncio.ensure_future(asyncio.start_server(guarded, sock=ready))
    try:
        yield port
    finally:
        task.result().close()


# ── gRPC ─────────────────────────────────────────────────────────────────────────────────────────────


class _Chat:
    """A stream of messages in both directions."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._said: queue.Queue[bytes | None] = queue.Queue()
        call: Any = channel.stream_stream(
            "/echo.Echo/Chat", request_serializer=bytes, response_deserializer=bytes
        )
        self._answers = call(iter(self._said.get, None), timeout=60)

    def say(self, word: bytes) -> bytes:
        self._said.put(word)
        return bytes(next(self._answers))

    def end(self) -> None:
        self._said.put(None)


@contextmanager
def _chat(world: EnvoyWorld) -> Generator[_Chat]:
    credentials = grpc.ssl_channel_credentials(world.certificate.trust)
    options = (("grpc.ssl_target_name_override", PRESS), ("grpc.default_authority", PRESS))
    with grpc.secure_channel(f"127.0.0.1:{world.ports.https}", credentials, options=options) as channel:
        chat = _Chat(channel)
        try:
            yield chat
        finally:
            chat.end()


@contextmanager
def _grpc_server() -> Generator[int]:
    def echo(said: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        yield from said

    handler = grpc.stream_stream_rpc_method_handler(
        echo, request_deserializer=bytes, response_serializer=bytes
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", {"Chat": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)
