"""A look at an application's metrics ends in time and size, whatever the application does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from skerry.adapters.net_metrics import NetMetrics
from skerry.kit.errors import Rejected, SkerryError


@asynccontextmanager
async def serving(*parts: bytes, stay: bool = False) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Answer every request with some bytes; `stay` holds the connection open after them."""
    heard: list[bytes] = []
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        for part in parts:
            writer.write(part)
        if stay:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        over.set()
        server.close()


async def fetch(port: int, *, path: str = "/metrics", timeout_s: float = 30.0) -> bytes:
    return await NetMetrics().fetch("127.0.0.1", port, path, timeout_s=timeout_s, max_bytes=1000)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("answer", "content"),
    (
        ((OK + b"\r\n", b"up 1\n", b"up 2\n"), b"up 1\nup 2\n"),
        (
            (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n5;x=y\r\nup 2\n\r\n0\r\n\r\n",),
            b"up 1\nup 2\n",
        ),
        ((b"HTTP/1.0 200 OK\r\n\r\n",), b""),
    ),
)
async def test_what_is_told_comes_whole(answer: tuple[bytes, ...], content: bytes) -> None:
    async with serving(*answer) as (port, heard):
        assert await fetch(port) == content
    assert heard[0].startswith(b"GET /metrics HTTP/1.0\r\n")


@pytest.mark.parametrize(
    "answer",
    (
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 500 No\r\n\r\nup 1\n",
        b"HTTP/1.1 302 Over there\r\nLocation: /x\r\n\r\n",
        OK + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\n\r\nxx",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nup",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nup",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz",
    ),
)
async def test_any_other_answer_is_unreachable(answer: bytes) -> None:
    async with serving(answer) as (port, _):
        with pytest.raises(SkerryError) as caught:
            await fetch(port)
    assert caught.value.code == "metrics.unreachable"


async def test_too_much_is_refused_before_it_is_all_there() -> None:
    async with serving(OK + b"\r\n" + b"x" * 5000, stay=True) as (port, _):
        with pytest.raises(Rejected):
            await fetch(port)


async def test_silence_and_nobody_end_in_time() -> None:
    async with serving(OK, stay=True) as (port, _):
        with pytest.raises(SkerryError, match="no answer within"):
            await fetch(port, timeout_s=0.05)
        with pytest.raises(SkerryError, match="not a path"):
            await fetch(port, path="/x y")
    with pytest.raises(SkerryError):
        await fetch(port)
