"""HTTP/1.1 of the process that copies and compares: a connection with its state beside it, and bodies that are bounded.

What arrives from Envoy is passed on as it is, but for the headers that belong to one connection (RFC 9110, 7.6.1).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import h11

MAX_HEAD_BYTES = 128 << 10
"""Of what comes before a body; Envoy passes 60 KiB at most."""
CONNECT_S = 2.0
_PIECE_BYTES = 64 << 10
_OF_A_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect", b"proxy-authenticate")
)
BROKEN = (OSError, EOFError, h11.RemoteProtocolError, h11.LocalProtocolError)
"""What a connection raises that ends in the middle, or speaks no HTTP."""


def cut_short() -> EOFError:
    """Return what is raised for a message that ends too soon."""
    return EOFError("the connection ended within a message")


Headers = list[tuple[bytes, bytes]]


class Peer:
    """One end of a connection."""

    def __init__(
        self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.http = http
        self._reader = reader
        self._writer = writer

    @property
    def is_reusable(self) -> bool:
        """Whether another request may go over it, as far as one can see."""
        states = (self.http.our_state, self.http.their_state)
        return all(state is h11.DONE for state in states) and not self._reader.at_eof()

    async def receive(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return what comes next.

        Raises:
            OSError: the connection is broken.
            h11.RemoteProtocolError: it ended too soon, or speaks no HTTP.
        """
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self._reader.read(_PIECE_BYTES))
        return event

    async def send(self, event: h11.Event) -> None:
        """Send something, and wait while the other end takes nothing.

        Raises:
            OSError: the connection is broken.
            h11.LocalProtocolError: it does not belong here now.
        """
        data = self.http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()

    @property
    def is_gone(self) -> bool:
        """Whether the other end has ended the connection, and all that it said was read."""
        return self._reader.at_eof()

    def close(self) -> None:
        """End the connection, whatever is under way."""
        with contextlib.suppress(OSError):
            self._writer.close()


class Kept:
    """What is kept of a body: all of it, or that it was too long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self.is_whole = False

    @property
    def fits(self) -> bool:
        """Whether no piece was left out."""
        return self._size <= self._most

    @property
    def content(self) -> bytes:
        """The body."""
        return b"".join(self._pieces)

    def add(self, piece: bytes | bytearray) -> None:
        """Keep a piece, unless that is too much."""
        self._size += len(piece)
        if self.fits:
            self._pieces.append(bytes(piece))
        else:
            self._pieces.clear()


def as_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Peer:
    """Return a connection over which this process asks."""
    return Peer(h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES), reader, writer)


def as_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Peer:
    """Return a connection over which this process answers."""
    return Peer(h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES), reader, writer)


async def connect(port: int) -> Peer:
    """Return a connection to a port of this host.

    Raises:
        OSError: nobody answers there, also not in time.
    """
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    return as_client(reader, writer)


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of a message without those of its connection."""
    every = list(headers)
    named = {
        name.strip().lower() for key, value in every if key == b"connection" for name in value.split(b",")
    }
    return [(key, value) for key, value in every if key not in _OF_A_CONNECTION and key not in named]


async def ask(port: int, request: h11.Request, body: bytes, most: int) -> tuple[int, Kept]:
    """Return the status and the body of the answer to a request; it has no bound in time of its own.

    Raises:
        OSError: nobody answers.
        h11.RemoteProtocolError: the answer ends too soon, or is no HTTP.
    """
    peer = await connect(port)
    try:
        await peer.send(request)
        if body:
            await peer.send(h11.Data(data=body))
        await peer.send(h11.EndOfMessage())
        status, kept = 0, Kept(most)
        while kept.fits:
            event = await peer.receive()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                kept.add(event.data)
            elif isinstance(event, h11.EndOfMessage):
                kept.is_whole = True
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise cut_short()
        return status, kept
    finally:
        peer.close()
