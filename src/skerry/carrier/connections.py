"""Connections of the hub: whoever sends or reads too slowly, or too much without saying anything, is cut off.

Rules: a request's head has a time limit and a size limit; its body has to come on, and to come to an end; an answer
has to be taken. A connection whose request is not whole yet is one of few: beyond so many of an address, or of all,
the one that has been at it for longest is cut, so that slow connections stand in each other's way and not in that of
others. Requests that are whole, long-polls among them, are not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections import OrderedDict
from typing import Any, Protocol, cast

import msgspec
import structlog
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from skerry.carrier.limits import address_of

_log = structlog.get_logger()

HANDSHAKE_S = 10.0
# Not every system has all of them.
PROBES = {"TCP_KEEPIDLE": 90, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}


class Patience(msgspec.Struct, frozen=True):
    """How long a connection may take and how much it may send. At least `body_bytes` of a body in each `body_s`.

    `head_bytes` bounds all that says nothing: head, chunk sizes, trailers. `lifetime_s` is for a whole request,
    `refused_s` for what still comes of one that was answered already.
    """

    head_s: float = 10.0
    head_bytes: int = 64 << 10
    body_s: float = 30.0
    body_bytes: int = 4096
    lifetime_s: float = 3600.0
    refused_s: float = 30.0
    answer_s: float = 600.0
    unfinished_of_address: int = 256
    unfinished: int = 2048
    idle: int = 8192


class Cuttable(Protocol):
    """A connection that can be cut."""

    def cut(self, why: str) -> None:
        """End the connection at once."""
        ...


class Crowd:
    """Connections in the order in which they began what they are at; those beyond a number are cut, oldest first."""

    def __init__(self, most: int, why: str) -> None:
        self._most = most
        self._why = why
        self._members: OrderedDict[Cuttable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def join(self, connection: Cuttable) -> None:
        """Add a connection; one that is there keeps its place."""
        self._members.setdefault(connection)
        if len(self._members) > self._most:
            oldest, _ = self._members.popitem(last=False)
            oldest.cut(self._why)

    def leave(self, connection: Cuttable) -> None:
        """Forget a connection."""
        self._members.pop(connection, None)


class Crowds:
    """All connections of a hub that may have to go."""

    def __init__(self, patience: Patience) -> None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        room = files if files != resource.RLIM_INFINITY else 1 << 20
        self._patience = patience
        self._unfinished = Crowd(min(patience.unfinished, room // 4), "too many unfinished requests")
        self._idle = Crowd(min(patience.idle, room // 4), "too many idle connections")
        self._by_address: dict[str, Crowd] = {}

    def begin(self, address: str, connection: Cuttable) -> None:
        """Note that a connection has a request to send, and has not sent it."""
        self._idle.leave(connection)
        crowd = self._by_address.get(address)
        if crowd is None:
            crowd = Crowd(self._patience.unfinished_of_address, "too many unfinished requests of its address")
            self._by_address[address] = crowd
        crowd.join(connection)
        self._unfinished.join(connection)

    def complete(self, address: str, connection: Cuttable) -> None:
        """Note that a request has arrived."""
        self._unfinished.leave(connection)
        crowd = self._by_address.get(address)
        if crowd is not None:
            crowd.leave(connection)
            if not len(crowd):
                del self._by_address[address]

    def rest(self, connection: Cuttable) -> None:
        """Note that a connection waits for its next request."""
        self._idle.join(connection)

    def leave(self, address: str, connection: Cuttable) -> None:
        """Forget a connection."""
        self.complete(address, connection)
        self._idle.leave(connection)


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, on one connection.

    Also: connections that wait for their next request are cut when the hub goes. A TLS connection that is closed
    politely waits for its peer, and an agent does not read while it has nothing to ask: the hub would take its whole
    time limit to stop.
    """

    patience: Patience
    crowds: Crowds

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._address = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._slow_reader: asyncio.TimerHandle | None = None
        self._begun_at: float | None = None  # while a request is not whole
        self._in_body = False
        self._answered = False  # before all of the request was here
        self._said_nothing = 0
        self._body_since = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request soon."""
        super().connection_made(transport)
        _probe(transport)
        self._address = address_of(self.client[0] if self.client else None)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timers()
        self.crowds.leave(self._address, self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and cut who sends too many that say nothing."""
        if self._begun_at is None:
            self._begin()
        self._said_nothing += len(data)
        super().data_received(data)
        if self._said_nothing > self.patience.head_bytes and self._begun_at is not None:
            self.cut("the head is too long")

    def on_headers_complete(self) -> None:
        """The head is there: from now on the body has to come on."""
        self._said_nothing = 0
        self._in_body = True
        self._body_since = 0
        self._expect(self.patience.body_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what comes of a body."""
        self._said_nothing = 0
        self._body_since += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: it may take its time to be answered."""
        self._said_nothing = 0
        self._begun_at = None
        self._in_body = False
        self._expect(None)
        self.crowds.complete(self._address, self)
        super().on_message_complete()
        if self.cycle.response_complete:  # answered before all of it was here
            self.crowds.rest(self)

    def on_response_complete(self) -> None:
        """Wait for the next request; who still sends the last one, though it was answered, is to end that soon."""
        super().on_response_complete()
        if self._begun_at is None:
            self.crowds.rest(self)
        elif self._in_body and self.cycle.response_complete:
            self._answered = True
            self._expect(self.patience.refused_s)

    def pause_writing(self) -> None:
        """The peer does not take its answer: not for ever."""
        super().pause_writing()
        self._slow_reader = self.loop.call_later(self.patience.answer_s, self.cut, "the answer is not taken")

    def resume_writing(self) -> None:
        """The peer has taken some of it."""
        super().resume_writing()
        if self._slow_reader is not None:
            self._slow_reader.cancel()
            self._slow_reader = None

    def shutdown(self) -> None:
        """End the connection, now if it is idle, else after the answer under way."""
        cycle = cast(RequestResponseCycle | None, self.cycle)
        if cycle is None or cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def cut(self, why: str) -> None:
        """End the connection at once: who is slow on purpose would be slow to say goodbye."""
        self._stop_timers()
        if not self.transport.is_closing():
            _log.debug("connection.cut", address=self._address, why=why)
        self.transport.abort()

    def _begin(self) -> None:
        self._begun_at = self.loop.time()
        self._in_body = False
        self._answered = False
        self._said_nothing = 0
        self.crowds.begin(self._address, self)
        self._expect(self.patience.head_s)

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """The time for the head or for a part of the body is over."""
        begun_at = self._begun_at
        if begun_at is None:
            return
        over = self._answered or self.loop.time() - begun_at > self.patience.lifetime_s
        # While we do not read, nothing can come.
        comes_on = self._in_body and (self._body_since >= self.patience.body_bytes or self.flow.read_paused)
        if over or not comes_on:
            self.cut("the request comes too slowly")
            return
        self._body_since = 0
        self._expect(self.patience.body_s)

    def _stop_timers(self) -> None:
        self._expect(None)
        if self._slow_reader is not None:
            self._slow_reader.cancel()
            self._slow_reader = None


def _probe(transport: asyncio.BaseTransport) -> None:
    """Have the kernel ask whether the other end is still there: one that vanished says no goodbye.

    Who waits at the hub counts as there. It is found out within a bit more than two minutes; asked for less often than
    hosts begin a new wait, so that it costs little.
    """
    found: socket.socket | None = transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in PROBES.items():
            if (option := getattr(socket, name, None)) is not None:
                found.setsockopt(socket.IPPROTO_TCP, option, value)


def patient_protocol(patience: Patience | None = None) -> type[PatientProtocol]:
    """Return the protocol of one server, whose connections know of each other."""
    patience = patience or Patience()
    return type("PatientProtocol", (PatientProtocol,), {"patience": patience, "crowds": Crowds(patience)})


class _Loop(uvloop.Loop):
    """An event loop whose TLS servers do not wait for a handshake for a minute."""

    async def create_server(self, *arguments: Any, **options: Any) -> Any:
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", HANDSHAKE_S)
        return await super().create_server(*arguments, **options)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that a hub runs in."""
    return _Loop()


def allow_many_files() -> None:
    """Let this process have as many open files, and with them connections, as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
