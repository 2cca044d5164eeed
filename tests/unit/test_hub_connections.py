"""Connections of a hub: who is slow, or talks without saying anything, is cut off; nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from skerry.carrier.connections import Patience, PatientProtocol, patient_protocol
from skerry.testing.waiting import eventually

pytestmark = pytest.mark.trust

HURRIED = Patience(
    head_s=0.3,
    body_s=0.3,
    body_bytes=100,
    refused_s=0.3,
    answer_s=0.5,
    unfinished_of_address=5,
)
HEAD = b"POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: %d\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body's length; `/refused` at once, `/long` with 16 MiB, `/late` when half a second is over."""
    size, more = 0, scope["path"] != "/refused"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    if scope["path"] == "/late":
        await asyncio.sleep(1.0)
    body = b"x" * (16 << 20) if scope["path"] == "/long" else b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), 65536):
        await send({"type": "http.response.body", "body": body[start : start + 65536], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Served:
    """A server with little patience, and raw connections to it."""

    def __init__(self, port: int, protocol: type[PatientProtocol]) -> None:
        self.port = port
        self.crowds = protocol.crowds

    async def open(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=4096)
        writer.write(sent)
        return reader, writer

    async def answers(self) -> bool:
        """Tell whether a normal request is answered."""
        reader, writer = await self.open(HEAD % 2 + b"ab")
        try:
            return (await reader.read(4096)).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serve(asgi: ASGIApp, patience: Patience) -> AsyncGenerator[Served]:
    protocol = patient_protocol(patience)
    config = uvicorn.Config(
        asgi, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, loop="none"
    )
    with socket.create_server(("127.0.0.1", 0)) as door:
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([door]))
        try:
            yield Served(door.getsockname()[1], protocol)
        finally:
            server.should_exit = server.force_exit = True
            await task


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serve(app, HURRIED) as made:
        yield made


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Tell whether the other side ends the connection, within some seconds."""
    try:
        async with asyncio.timeout(10.0):
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        return True
    return True


async def drip(writer: asyncio.StreamWriter, drop: Callable[[], bytes], every_s: float = 0.05) -> None:
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(drop())
            await writer.drain()
            await asyncio.sleep(every_s)


SLOW = {
    "nothing at all": (b"", b""),
    "a head byte by byte": (b"POST /echo HTTP/1.1\r\nX: ", b"x"),
    "headers without end": (b"POST /echo HTTP/1.1\r\n", b"X: y\r\n"),
    "empty lines": (b"", b"\r\n"),
    "a body that stops": (HEAD % 1000 + b"abc", b""),
    "a body byte by byte": (HEAD % 100_000, b"x"),
    "a chunked body byte by byte": (
        b"POST /echo HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "a body after the answer": (HEAD.replace(b"/echo", b"/refused") % 10_000_000, b"x" * 5000),
}


@pytest.mark.rule("DOOR-4")
@pytest.mark.parametrize(("begin", "drop"), SLOW.values(), ids=list(SLOW))
async def test_who_sends_slowly_is_cut_off(served: Served, begin: bytes, drop: bytes) -> None:
    reader, writer = await served.open(begin)
    dripping = asyncio.create_task(drip(writer, lambda: drop))
    assert await is_cut(reader)
    writer.close()
    await dripping
    assert await served.answers()


@pytest.mark.rule("DOOR-4")
async def test_a_body_that_comes_on_for_ever_is_ended() -> None:
    async with serve(app, Patience(body_s=0.2, body_bytes=100, lifetime_s=1.0)) as served:
        reader, writer = await served.open(HEAD % 1_000_000_000)
        dripping = asyncio.create_task(drip(writer, lambda: b"x" * 1000))
        assert await is_cut(reader)
        writer.close()
        await dripping


@pytest.mark.rule("DOOR-4")
@pytest.mark.parametrize(
    ("begin", "drop"),
    (
        (b"POST /echo HTTP/1.1\r\nX: ", b"x" * 4096),
        (b"POST /echo HTTP/1.1\r\n", b"X: y\r\n" * 700),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 700),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"y" * 4096),
    ),
    ids=("one header", "headers", "trailers", "a chunk's extension"),
)
async def test_who_talks_without_saying_anything_is_cut_off(begin: bytes, drop: bytes) -> None:
    sent = 0

    def more() -> bytes:
        nonlocal sent
        sent += len(drop)
        return drop

    async with serve(app, Patience()) as served:  # patient: it is the size that counts
        reader, writer = await served.open(begin)
        dripping = asyncio.create_task(drip(writer, more, every_s=0.0))
        assert await is_cut(reader)
        writer.close()
        await dripping
    assert sent < 8 << 20


@pytest.mark.rule("DOOR-4")
async def test_who_does_not_take_the_answer_is_cut_off() -> None:
    loop = asyncio.get_running_loop()
    async with serve(app, Patience(answer_s=0.3)) as served:
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await loop.sock_connect(raw, ("127.0.0.1", served.port))
            await loop.sock_sendall(raw, HEAD.replace(b"/echo", b"/long") % 0)

            async def gone() -> bool:
                # The end of what nobody reads does not show; that writing is refused does.
                try:
                    await loop.sock_sendall(raw, b"\r\n")
                except ConnectionError:
                    return True
                return False

            # Before the time for the head of the next request, which the line ends begin, is over.
            assert await eventually(gone, limit_s=0.8 * Patience().head_s)


async def test_who_waits_for_an_answer_or_between_requests_is_left_alone(served: Served) -> None:
    reader, writer = await served.open(HEAD.replace(b"/echo", b"/late") % 2 + b"ab")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(1) == b"2"
    await asyncio.sleep(2 * HURRIED.head_s)  # longer than a head may take
    writer.write(HEAD % 3 + b"abc")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.rule("DOOR-4")
async def test_of_too_many_unfinished_requests_of_an_address_the_oldest_goes() -> None:
    async with serve(app, Patience(unfinished_of_address=5)) as served:
        slow = [await served.open(b"POST /echo HTTP/1.1\r\nX: ") for _ in range(5)]
        assert await served.answers()
        more = [await served.open(b"POST /echo HTTP/1.1\r\nX: ") for _ in range(5)]
        assert await served.answers()
        for reader, _ in slow:
            assert await is_cut(reader)
        for _, writer in slow + more:
            writer.close()

        async def forgotten() -> bool:
            return not served.crowds._by_address and not len(served.crowds._unfinished)

        assert await eventually(forgotten)


async def test_of_too_many_idle_connections_the_oldest_goes() -> None:
    async with serve(app, Patience(idle=3)) as served:
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for _ in range(5):
            reader, writer = await served.open(HEAD % 2 + b"ab")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            idle.append((reader, writer))
        assert await is_cut(idle[0][0])
        assert await is_cut(idle[1][0])
        idle[2][1].write(HEAD % 2 + b"ab")
        assert await idle[2][0].readuntil(b"\r\n\r\n")
        for _, writer in idle:
            writer.close()
