"""NetProber against servers that answer well, badly, slowly and not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from skerry.adapters.net_prober import NetProber
from skerry.testing.fake_runtime import FakeProber

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(answer: bytes | None, *, heard: list[bytes] | None = None) -> AsyncGenerator[int, None]:
    """Answer each connection with these bytes after its request and close; None never answers."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if heard is not None:
                heard.append(request)
            if answer is None:
                await over.wait()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "why"),
    (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 204\r\n\r\n", None),
        (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 5_000_000, None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP 400 from /healthz"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP 503 from /healthz"),
        (b"HTTP/1.1 199 Odd\r\n\r\n", "HTTP 199 from /healthz"),
        (b"", "connection closed without an answer"),
        (b"HTTP/1.1 200", "the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "the answer is not HTTP"),
        (b"\0" * 100_000, "the answer is not HTTP"),
    ),
)
async def test_the_first_line_of_the_answer_decides(answer: bytes, why: str | None) -> None:
    async with serving(answer) as port:
        assert await NetProber().http(HOST, port, "/healthz", timeout_s=20) == why


async def test_the_request_is_a_plain_get() -> None:
    heard: list[bytes] = []
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", heard=heard) as port:
        assert await NetProber().http(HOST, port, "/healthz?deep=1", timeout_s=20) is None
    lines = heard[0].split(b"\r\n")
    assert lines[0] == b"GET /healthz?deep=1 HTTP/1.1"
    assert f"Host: {HOST}:{port}".encode() in lines
    assert b"Connection: close" in lines


async def test_silence_ends_with_the_time_limit() -> None:
    async with serving(None) as port:
        started = asyncio.get_running_loop().time()
        assert await NetProber().http(HOST, port, "/", timeout_s=0.2) == "no answer within 0.2s"
        assert asyncio.get_running_loop().time() - started < 5


async def test_nobody_at_the_port_is_a_refusal() -> None:
    async with serving(b"") as port:
        pass
    assert await NetProber().tcp(HOST, port, timeout_s=20) == "connection refused"
    assert await NetProber().http(HOST, port, "/", timeout_s=20) == "connection refused"


async def test_an_open_port_passes_the_tcp_probe() -> None:
    async with serving(None) as port:
        assert await NetProber().tcp(HOST, port, timeout_s=20) is None


@pytest.mark.parametrize("path", ("", "healthz", "/a b", "/a\r\nX: y", "/ü"))
async def test_what_is_no_path_is_never_sent(path: str) -> None:
    heard: list[bytes] = []
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", heard=heard) as port:
        assert await NetProber().http(HOST, port, path, timeout_s=20) == f"{path!r} is not a path"
    assert heard == []


async def test_hosts_and_ports_that_cannot_be_are_answers_too() -> None:
    prober = NetProber()
    assert await prober.tcp("no-such-host.invalid", 80, timeout_s=20) is not None
    assert await prober.tcp("a" * 300, 80, timeout_s=20) is not None
    assert await prober.tcp("", 1, timeout_s=20) is not None
    assert await prober.tcp(HOST, 70000, timeout_s=20) is not None


async def test_the_fake_answers_as_it_was_told() -> None:
    fake = FakeProber()
    fake.answer(80, "/healthz", None)
    fake.answer(80, "", "connection reset")
    assert await fake.http("a", 80, "/healthz", timeout_s=1) is None
    assert await fake.http("a", 80, "/other", timeout_s=1) == "connection refused"
    assert await fake.tcp("a", 80, timeout_s=1) == "connection reset"
    assert fake.asked == [("a", 80, "/healthz"), ("a", 80, "/other"), ("a", 80, "")]
