"""DnsNameServer: a host's DNS by UDP and TCP, messages by dnslib. Needs the extra `names`.

Rules: clients that are not near get no byte, nor does whoever asks too much. A message that cannot be read gets FORMERR
at the most. A client by TCP has a few seconds for each question, and there is room for so many of them.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from skerry.adapters.dns_clients import Rates, is_loopback, is_near
from skerry.adapters.dns_forwarding import Forwarding, split_place
from skerry.adapters.dns_packets import (
    MAX_QUERY_BYTES,
    SERVFAIL,
    TCP_BYTES,
    Query,
    load_library,
    read_query,
    write_answer,
    write_refusal,
    write_short,
)
from skerry.kit.errors import Unavailable
from skerry.matching.names import Asked
from skerry.ports.clock import Clock
from skerry.ports.names import Answer, NameServer

MAX_UDP_PENDING = 128
MAX_CONNECTIONS = 32
MAX_CONNECTIONS_EACH = 4
MAX_ASKED_EACH = 100
TCP_IDLE_S = 5.0
FREE_PORT_TRIES = 8


class _Open(msgspec.Struct, frozen=True):
    """A place that is listened at."""

    at: str
    udp: asyncio.DatagramTransport
    tcp: asyncio.Server


class DnsNameServer(NameServer):
    """Answers for the site, and asks upstreams for the rest."""

    def __init__(self, clock: Clock, *, idle_s: float = TCP_IDLE_S) -> None:
        """`idle_s` is how long a client by TCP may take for each question."""
        self._clock, self._idle_s = clock, idle_s
        self._forwarding = Forwarding(clock)
        self._rates = Rates()
        self._answer: Answer = lambda _: None
        self._open: dict[str, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.Task[None], str] = {}

    @property
    def listening(self) -> tuple[str, ...]:
        return tuple(found.at for found in self._open.values())

    async def serve(self, places: Sequence[str], upstreams: Sequence[str], answer: Answer) -> None:
        if places:
            load_library()
        self._answer = answer
        self._forwarding.set_upstreams(upstreams)
        for place in [place for place in self._open if place not in places]:
            self._shut(self._open.pop(place))
        trouble: Unavailable | None = None
        for place in places:
            if place not in self._open:
                try:
                    self._open[place] = await self._listen(place)
                except (OSError, OverflowError) as error:
                    why = error.strerror if isinstance(error, OSError) else str(error)
                    trouble = trouble or Unavailable("names.unavailable", f"cannot listen at {place}: {why}")
        if trouble is not None:
            raise trouble

    async def close(self) -> None:
        for found in self._open.values():
            self._shut(found)
        self._open = {}
        tasks = [*self._tasks, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, place: str) -> _Open:
        """Listen by UDP and TCP at one port."""
        host, port = split_place(place)
        for left in reversed(range(FREE_PORT_TRIES)):
            try:
                return await self._bind(host, port)
            except OSError as error:
                # A free port of UDP may be taken of TCP.
                if port or error.errno != errno.EADDRINUSE or not left:
                    raise
        raise AssertionError

    async def _bind(self, host: str, port: int) -> _Open:
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._ask_udp), local_addr=(host, port)
        )
        bound = int(udp.get_extra_info("sockname")[1])
        try:
            tcp = await asyncio.start_server(self._take_connection, host, bound, limit=MAX_QUERY_BYTES + 2)
        except OSError:
            udp.close()
            raise
        at = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        return _Open(at, udp, tcp)

    def _shut(self, found: _Open) -> None:
        found.udp.close()
        found.tcp.close()

    # ── by UDP ───────────────────────────────────────────────────────────────────────────────────────

    def _ask_udp(self, data: bytes, client: tuple[Any, ...], transport: asyncio.DatagramTransport) -> None:
        """Answer a datagram: at once where the zone says it, later where an upstream is asked."""
        own = str(transport.get_extra_info("sockname")[0])
        query = self._taken(data, str(client[0]))
        if query is None:
            return
        at_once = self._own_answer(query, str(client[0]), own, room=query.room)
        if at_once:
            _send(transport, at_once, client)
            return
        if len(self._tasks) >= MAX_UDP_PENDING:
            _send(transport, write_refusal(query, SERVFAIL), client)
            return

        async def later() -> None:
            found = await self._forwarding.ask(query, tcp=False)
            _send(transport, found if len(found) <= query.room else write_short(query), client)

        task = asyncio.ensure_future(later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── by TCP ───────────────────────────────────────────────────────────────────────────────────────

    async def _take_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        client = str(writer.get_extra_info("peername")[0])
        own = str(writer.get_extra_info("sockname")[0])
        each = sum(one == client for one in self._connections.values())
        if not is_near(client) or len(self._connections) >= MAX_CONNECTIONS or each >= MAX_CONNECTIONS_EACH:
            writer.transport.abort()
            return
        self._connections[task] = client
        try:
            for _ in range(MAX_ASKED_EACH):
                async with asyncio.timeout(self._idle_s):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    if length > MAX_QUERY_BYTES:
                        break
                    data = await reader.readexactly(length)
                query = self._taken(data, client)
                if query is None:
                    break
                found = self._own_answer(query, client, own, room=TCP_BYTES)
                found = found or await self._forwarding.ask(query, tcp=True)
                async with asyncio.timeout(self._idle_s):
                    writer.write(struct.pack("!H", len(found)) + found)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass  # it went, or says nothing more
        except asyncio.CancelledError:
            pass  # the server closes; what runs a connection must not raise that
        finally:
            self._connections.pop(task, None)
            writer.close()

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────

    def _taken(self, data: bytes, client: str) -> Query | None:
        """Return the question of a client that may ask, None where nothing is to be answered."""
        if not is_near(client) or not self._rates.afford(client, self._clock.monotonic()):
            return None
        return read_query(data)

    def _own_answer(self, query: Query, client: str, own: str, *, room: int) -> bytes:
        """Return the answer where no upstream is needed, else nothing."""
        if query.refusal >= 0:
            return write_refusal(query, query.refusal)
        near = is_loopback(client) or client == own
        found = self._answer(Asked(query.name, query.type, near))
        if found is not None:
            return write_answer(query, found, room=room)
        return b"" if self._forwarding.upstreams else write_refusal(query, SERVFAIL)


def _send(transport: asyncio.DatagramTransport, data: bytes, client: tuple[Any, ...]) -> None:
    """Send an answer, unless the place is closed."""
    if not transport.is_closing():
        transport.sendto(data, client)


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on with who sent them; while the network takes no more, it takes none itself."""

    def __init__(self, take: Callable[[bytes, tuple[Any, ...], asyncio.DatagramTransport], None]) -> None:
        self._take = take
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Asyncio's own are no subclass of it before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._transport is not None and not self._full:
            self._take(data, addr, self._transport)
