"""BusDoor by asyncio: ends TLS, and copies bytes between a client and the broker on the loopback address.

It understands nothing of what it copies: who may do what is the broker's to say. Each direction waits for whoever reads
it, so that a client that does not read holds up itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Collection, Mapping

import structlog

from skerry.kit.errors import Unavailable
from skerry.ports.broker import BusTls
from skerry.ports.bus_door import BusDoor

_log = structlog.get_logger()

MAX_CONNECTIONS = 128
MAX_OF_ONE = 32
"""TLS of the standard library costs up to 300 KB for each connection."""
HANDSHAKE_S = 10.0
FIRST_WORD_S = 10.0
CONNECT_S = 5.0
_BUFFER_BYTES = 64 << 10
_HERE = "127.0.0.1"


class TlsBusDoor(BusDoor):
    """Belongs to the event loop it is used in. Who says nothing within `first_word_s` is cut off."""

    def __init__(self, *, first_word_s: float = FIRST_WORD_S, most_of_one: int = MAX_OF_ONE) -> None:
        self._first_word_s, self._most_of_one = first_word_s, most_of_one
        self._servers: dict[str, asyncio.Server] = {}
        self._context: ssl.SSLContext | None = None
        self._taken: tuple[BusTls, int, int] | None = None
        self._to = 0
        self._open: dict[asyncio.Task[None], str] = {}

    async def serve(
        self, addresses: Collection[str], port: int, *, tls: BusTls, to: int
    ) -> Mapping[str, str]:
        """See `BusDoor.serve`."""
        if self._taken is not None and self._taken[1:] != (port, to):
            await self.close()
        self._take(tls)
        self._to = to
        for address in self._servers.keys() - set(addresses):
            self._servers.pop(address).close()
        troubles: dict[str, str] = {}
        for address in sorted(set(addresses) - self._servers.keys()):
            try:
                self._servers[address] = await asyncio.start_server(
                    self._came,
                    address,
                    port,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_S,
                    limit=_BUFFER_BYTES,
                    backlog=16,
                )
            except OSError as error:
                troubles[address] = f"cannot listen at {address}:{port}: {error.strerror or error}"
        self._taken = (tls, port, to)
        return troubles

    async def close(self) -> None:
        """See `BusDoor.close`."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        open_now = list(self._open)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
        self._taken = None

    def _take(self, tls: BusTls) -> None:
        """Have new connections get this certificate; the context is one for all that listens."""
        if self._taken is not None and self._taken[0] == tls:
            return
        context = self._context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(tls.certificate, tls.key)
        except (OSError, ssl.SSLError) as error:
            raise Unavailable("bus.certificate", f"the bus's certificate cannot be read: {error}") from error
        self._context = context

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        task = asyncio.current_task()
        assert task is not None
        of_one = Counter(self._open.values())[address]
        if len(self._open) >= MAX_CONNECTIONS or of_one >= self._most_of_one:
            _log.info("bus_door.full", address=address, connections=len(self._open))
            writer.transport.abort()
            return
        self._open[task] = address
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            # This is the connection's own task, and it is ended with the door.
            writer.transport.abort()
        finally:
            self._open.pop(task, None)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
            async with asyncio.timeout(self._first_word_s):
                first = await reader.read(_BUFFER_BYTES)
            if not first:
                return
            async with asyncio.timeout(CONNECT_S):
                inner, out = await asyncio.open_connection(_HERE, self._to, limit=_BUFFER_BYTES)
            try:
                out.write(first)
                ways = [
                    asyncio.ensure_future(_copy(reader, out)),
                    asyncio.ensure_future(_copy(inner, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            finally:
                out.close()
        writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while chunk := await source.read(_BUFFER_BYTES):
            target.write(chunk)
            await target.drain()
