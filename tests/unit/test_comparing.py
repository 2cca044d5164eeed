"""What copies requests and compares answers, between real sockets: clients see the live release and nothing else."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.comparing import AT_A_TIME, MAX_WAITING, Comparer
from skerry.adapters.comparing_words import Pair
from skerry.ports.proxy import ShadowCounts
from skerry.spec.shadow import CopiedMethod, Shadow
from skerry.testing.waiting import eventually

Answering = Callable[[bytes, bytes], Awaitable[bytes | None]]
"""From the head and the body of a request to what is sent back; None ends the connection."""

ALL: tuple[CopiedMethod, ...] = ("GET", "HEAD", "POST")


def ok(body: bytes, *, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


class World:
    """A comparer between a client, a live release and one on trial; each can be made to do anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.comparer = Comparer()
        self.servers: list[asyncio.Server] = []
        self.asked: dict[str, list[tuple[bytes, bytes]]] = {"live": [], "trial": []}
        self._numbers = itertools.count()

    async def backend(self, name: str, answering: Answering) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = await _body(head, reader)
                    self.asked[name].append((head, body))
                    answer = await answering(head, body)
                    if answer is None:
                        return
                    writer.write(answer)
                    await writer.drain()
            except (asyncio.IncompleteReadError, OSError):
                return
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def pair(self, live: Answering, trial: Answering | int, **rule: Any) -> None:
        """Have the answers of two releases compared."""
        ports = [
            one if isinstance(one, int) else await self.backend(name, one)
            for name, one in (("live", live), ("trial", trial))
        ]
        # A machine may be slow: what takes long fails only where a test says so.
        options: dict[str, Any] = {"timeout": "60s", **rule}
        shadow = Shadow(share="100%", methods=ALL, **options)
        made = Pair("a/main/2", "a/main/1", str(self.folder / "s"), ports[0], ports[1], shadow)
        await self.comparer.serve((made,))

    async def ask(self, *requests: bytes) -> bytes:
        """Send requests over one connection, one after the other, and return what comes back until it ends."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "s"))
        found = b""
        try:
            for request in requests:
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                found += head + (b"" if request.startswith(b"HEAD") else await _body(head, reader))
        except asyncio.IncompleteReadError as error:
            return found + error.partial
        finally:
            writer.close()
        return found

    @property
    def counts(self) -> ShadowCounts:
        return self.comparer.counts["a/main/2"]

    async def done(self, requests: int) -> ShadowCounts:
        """Wait until nothing is to be compared any more."""

        async def look() -> ShadowCounts | None:
            found = self.counts
            return found if found.compared + found.uncompared == found.requests == requests else None

        return await eventually(look)

    async def close(self) -> None:
        await self.comparer.close()
        for server in self.servers:
            server.close()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return body
    _, _, rest = lower.partition(b"content-length:")
    return await reader.readexactly(int(rest.split(b"\r\n")[0])) if rest else b""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    try:
        yield one
    finally:
        await one.close()


def get(path: str = "/", *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: reader", *more, "", ""]).encode()


def says(*, live: bytes = b"one") -> Answering:
    async def answer(_head: bytes, _body: bytes) -> bytes:
        return ok(live)

    return answer


@pytest.mark.rule("INGRESS-7")
async def test_clients_get_the_live_answer_and_every_difference_is_counted(world: World) -> None:
    async def live(head: bytes, _body: bytes) -> bytes:
        return ok(head.split()[1])

    async def trial(head: bytes, _body: bytes) -> bytes:
        path = head.split()[1]
        return ok(b"other" if int(path[1:]) % 4 == 0 else path)

    await world.pair(live, trial)
    found = await world.ask(*(get(f"/{number}") for number in range(40)))
    assert found.count(b"200 OK") == 40
    assert b"other" not in found
    counts = await world.done(40)
    assert (counts.compared, counts.differing, counts.errors) == (40, 10, 0)
    assert counts.latency_ms[float("inf")] == counts.live_latency_ms[float("inf")] == 40


async def test_the_copy_is_the_request_with_its_body_and_a_mark(world: World) -> None:
    await world.pair(says(), says())
    chunked = b"POST /a?b=1 HTTP/1.1\r\nhost: reader\r\ntransfer-encoding: chunked\r\nx-id: 7\r\n\r\n"
    chunked += b"3\r\nabc\r\n0\r\n\r\n"
    await world.ask(chunked, get("/", "connection: x-hop", "x-hop: 1"))
    await world.done(2)
    (live, live_body), (second, _) = world.asked["live"]
    (trial, trial_body), (again, _) = sorted(world.asked["trial"], key=lambda one: b"/a?b=1" not in one[0])
    assert live_body == trial_body == b"abc"
    assert b"POST /a?b=1 " in live
    assert b"POST /a?b=1 " in trial
    assert b"x-id: 7" in trial
    assert b"x-skerry-shadow: 1" in trial
    assert b"x-skerry-shadow" not in live
    assert b"x-hop" not in second
    assert b"x-hop" not in again


async def test_an_answer_without_a_body_ends_with_its_head(world: World) -> None:
    async def bare(head: bytes, _body: bytes) -> bytes:
        return (
            b"HTTP/1.1 204 No Content\r\n\r\n"
            if b"GET" in head
            else b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
        )

    await world.pair(bare, bare)
    found = await world.ask(b"HEAD / HTTP/1.1\r\nhost: reader\r\n\r\n", get())
    assert b"content-length: 9" in found
    assert b"204 No Content" in found
    assert (await world.done(2)).differing == 0


@pytest.mark.rule("INGRESS-7")
@pytest.mark.parametrize("how", ("away", "silent", "cut", "garbage"))
async def test_a_release_on_trial_that_fails_costs_clients_nothing(world: World, how: str) -> None:
    async def trial(_head: bytes, _body: bytes) -> bytes | None:
        if how == "silent":
            await asyncio.sleep(3600)
        return None if how == "cut" else b"no HTTP at all\r\n\r\n"

    await world.pair(says(), 1 if how == "away" else trial, timeout="200ms")
    assert (await world.ask(get(), get())).count(b"200 OK") == 2
    counts = await world.done(2)
    assert (counts.compared, counts.differing, counts.errors) == (2, 2, 2)
    assert counts.latency_ms[float("inf")] == 0


async def test_what_the_live_release_fails_at_is_no_measure(world: World) -> None:
    async def live(_head: bytes, _body: bytes) -> bytes:
        return ok(b"broken", status=b"503 Service Unavailable")

    await world.pair(live, says())
    assert b"503" in await world.ask(get())
    assert (await world.done(1)).uncompared == 1
    assert world.asked["trial"] == []


@pytest.mark.rule("INGRESS-7")
async def test_what_is_too_long_passes_and_is_not_kept(world: World) -> None:
    long = b"x" * 5000
    await world.pair(says(live=long), says(live=long), max_body="4KiB")
    assert (await world.ask(get())).endswith(long)
    post = b"POST / HTTP/1.1\r\nhost: reader\r\ncontent-length: 5000\r\n\r\n"
    assert (await world.ask(post + long)).endswith(long)
    assert (await world.done(2)).uncompared == 2
    assert world.asked["live"][1][1] == long
    assert world.asked["trial"] == []


@pytest.mark.rule("INGRESS-7")
async def test_more_copies_than_may_wait_are_left_out_and_counted(world: World) -> None:
    gate = asyncio.Event()

    async def slow(_head: bytes, _body: bytes) -> bytes:
        await gate.wait()
        return ok(b"one")

    await world.pair(says(), slow)
    most = MAX_WAITING + AT_A_TIME
    assert (await world.ask(*(get() for _ in range(most + 20)))).count(b"200 OK") == most + 20
    gate.set()
    counts = await world.done(most + 20)
    # One that began meanwhile made room for another.
    assert counts.uncompared >= 20 - AT_A_TIME
    assert counts.compared >= MAX_WAITING


async def test_a_client_that_leaves_ends_what_was_asked_for_it(world: World) -> None:
    ended = asyncio.Event()

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(until_closed, "127.0.0.1", 0)
    world.servers.append(server)
    port = int(server.sockets[0].getsockname()[1])
    made = Pair("a/main/2", "a/main/1", str(world.folder / "s"), port, 1, Shadow(share="100%"))
    await world.comparer.serve((made,))
    _, writer = await asyncio.open_unix_connection(str(world.folder / "s"))
    writer.write(get())
    await writer.drain()

    async def is_asked() -> bool:
        return world.counts.requests == 1

    await eventually(is_asked)
    writer.close()
    async with asyncio.timeout(30):
        await ended.wait()


async def test_a_live_release_that_is_away_ends_the_connection_for_the_proxy_to_see(world: World) -> None:
    made = Pair("a/main/2", "a/main/1", str(world.folder / "s"), 1, 1, Shadow(share="100%"))
    await world.comparer.serve((made,))
    assert await world.ask(get()) == b""


async def test_a_pair_that_is_served_no_more_takes_nothing_and_keeps_its_counts(world: World) -> None:
    await world.pair(says(), says())
    await world.ask(get())
    await world.done(1)
    await world.comparer.serve(())
    with pytest.raises(OSError, match=r"refused|No such file"):
        await world.ask(get())

    async def is_idle() -> bool:
        return world.comparer.is_idle

    await eventually(is_idle)
    assert world.counts.compared == 1
