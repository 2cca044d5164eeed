"""What the door of a host's bus keeps, looked at by clients of the standard library and by mosquitto's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import msgspec
import pytest

from skerry.adapters.tls_bus_door import TlsBusDoor
from skerry.kit.errors import Unavailable
from skerry.ports.broker import BusTls
from skerry.testing.waiting import eventually
from tests.contract.bus_world import HERE, LINE, RULES, BusWorld, free_port, make_tls, mosquitto_sub, needs

OTHER = "127.0.0.9"
"""An address of every Linux machine that names of a certificate need not know."""


class Echo:
    """What stands for the broker: it says everything back, and counts who came."""

    def __init__(self) -> None:
        self.came = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, HERE, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.close()


class World:
    """A door before an echo, and who comes to it."""

    def __init__(self, folder: Path, echo: Echo) -> None:
        self.folder, self.echo = folder, echo
        self.tls = make_tls(folder)
        self.port = free_port()
        self.door = TlsBusDoor(most_of_one=3)
        self._clients: list[asyncio.StreamWriter] = []

    async def serve(self, *addresses: str, tls: BusTls | None = None) -> dict[str, str]:
        return dict(await self.door.serve(addresses, self.port, tls=tls or self.tls, to=self.echo.port))

    async def enter(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=str(self.tls.authorities))
        reader, writer = await asyncio.open_connection(HERE, self.port, ssl=context)
        self._clients.append(writer)
        return reader, writer

    async def say(self, word: bytes) -> bytes:
        reader, writer = await self.enter()
        return await say((reader, writer), word)

    async def close(self) -> None:
        for writer in self._clients:
            writer.transport.abort()
        await self.door.close()


async def say(way: tuple[asyncio.StreamReader, asyncio.StreamWriter], word: bytes) -> bytes:
    """Return what is said back; nothing when the connection has ended."""
    reader, writer = way
    try:
        writer.write(word)
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.readexactly(len(word))
    except (OSError, asyncio.IncompleteReadError):
        return b""


def certificate_at(port: int) -> str:
    """Return the certificate that is shown to who connects now."""
    return ssl.get_server_certificate((HERE, port), timeout=20)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Echo() as echo:
        made = World(tmp_path, echo)
        yield made
        await made.close()


@pytest.mark.rule("BUS-4")
async def test_it_listens_where_it_is_told_and_nowhere_else(world: World) -> None:
    assert await world.serve(HERE) == {}
    assert await world.say(b"hello") == b"hello"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(OTHER, world.port)
    assert await world.serve(OTHER) == {}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HERE, world.port)


@pytest.mark.rule("BUS-4")
async def test_without_tls_nobody_gets_to_the_broker(world: World) -> None:
    await world.serve(HERE)
    _, writer = plain = await asyncio.open_connection(HERE, world.port)
    assert await say(plain, b"\x10 in clear") == b""
    writer.close()
    assert world.echo.came == 0


async def test_much_goes_both_ways_whole(world: World) -> None:
    await world.serve(HERE)
    reader, writer = await world.enter()
    sent = bytes(range(256)) * 4096
    writing = asyncio.ensure_future(_send(writer, sent))
    async with asyncio.timeout(60):
        assert await reader.readexactly(len(sent)) == sent
    await writing


async def test_a_renewed_certificate_ends_no_connection(world: World) -> None:
    await world.serve(HERE)
    way = await world.enter()
    assert await say(way, b"before") == b"before"
    before = await asyncio.to_thread(certificate_at, world.port)
    (world.folder / "next").mkdir()
    world.tls = make_tls(world.folder / "next")
    await world.serve(HERE)
    assert await asyncio.to_thread(certificate_at, world.port) != before
    assert await world.say(b"new") == b"new"
    assert await say(way, b"after") == b"after"


async def test_who_says_nothing_is_cut_off(world: World) -> None:
    world.door = TlsBusDoor(first_word_s=0.2)
    await world.serve(HERE)
    silent, _ = await world.enter()
    async with asyncio.timeout(20):
        assert await silent.read(1) == b""
    assert world.echo.came == 0


async def test_one_client_has_only_so_many_connections(world: World) -> None:
    await world.serve(HERE)
    ways = [await world.enter() for _ in range(3)]
    assert [await say(way, b"in") for way in ways] == [b"in"] * 3
    assert await world.say(b"one too many") == b""
    ways[0][1].close()

    async def room() -> bool:
        return await world.say(b"room") == b"room"

    await eventually(room, what="room for another connection")


async def test_what_keeps_it_from_listening_is_said_and_tried_again(world: World) -> None:
    with socket.socket() as taken:
        taken.bind((HERE, world.port))
        taken.listen()
        troubles = await world.serve(HERE)
        assert f"cannot listen at {HERE}:{world.port}" in troubles[HERE]
    assert await world.serve(HERE) == {}
    assert await world.say(b"hello") == b"hello"


async def test_a_certificate_that_cannot_be_read_is_said(world: World) -> None:
    gone = msgspec.structs.replace(world.tls, certificate=world.folder / "nothing.pem")
    with pytest.raises(Unavailable) as caught:
        await world.serve(HERE, tls=gone)
    assert caught.value.code == "bus.certificate"


@pytest.mark.broker
@pytest.mark.rule("BUS-1")
@pytest.mark.parametrize("kind", ("nats", "mosquitto"))
async def test_a_client_comes_to_a_real_broker_by_its_own_account(kind: str, tmp_path: Path) -> None:
    needs(kind)
    bus = BusWorld(kind, tmp_path)
    door, tls, port = TlsBusDoor(), make_tls(tmp_path), free_port()
    try:
        await bus.apply()
        await door.serve([HERE], port, tls=tls, to=bus.settings.port)
        bus.open(LINE).client.publish("plant/line1/count", b"7", retain=True)
        outside = msgspec.structs.replace(bus.settings, tls=tls, port=port)
        done = await asyncio.to_thread(mosquitto_sub, outside, RULES, "plant/line1/#")
        assert done.stdout == "plant/line1/count 7\n", done.stderr
        wrong = msgspec.structs.replace(RULES, password="another")
        refused = await asyncio.to_thread(mosquitto_sub, outside, wrong, "plant/line1/#")
        assert refused.returncode != 0 and not refused.stdout
    finally:
        await door.close()
        await bus.close()


async def _send(writer: asyncio.StreamWriter, sent: bytes) -> None:
    writer.write(sent)
    await writer.drain()
