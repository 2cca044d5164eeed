"""BusLinkDoor by asyncio: TLS 1.3 with certificates of both ends, and frames that say their length first.

Who somebody is has to come from three places at once: the name below the site's domain, to which the issuer's bounds
hold it; the URI, which no application is given; and the issuer's own name, which says whose it is. So neither a host of
another site, nor an application, nor another host of this one can pass for a host.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import structlog

from skerry.kit.errors import SkerryError, Unavailable, Untrusted
from skerry.ports.bus_link import (
    MAX_FRAME_BYTES,
    Accept,
    BusLinkDoor,
    LinkEnd,
    LinkIdentity,
    link_name,
    link_uri,
)

_log = structlog.get_logger()

MAX_LINKS = 64
HANDSHAKE_S = 10.0
_BUFFER_BYTES = 64 << 10
_LENGTH_BYTES = 4
_NAMED_BY_ISSUER = 47  # as much of a host's name is in its intermediate's


class TlsLinkEnd(LinkEnd):
    """One end of a link whose other end has been verified."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer

    @property
    def host(self) -> str:
        """See `LinkEnd.host`."""
        return self._host

    async def send(self, frame: bytes) -> None:
        """See `LinkEnd.send`."""
        try:
            self._writer.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Unavailable("link.cut", f"the link with {self._host} has ended: {error}") from error

    async def receive(self, *, limit_s: float) -> bytes:
        """See `LinkEnd.receive`."""
        try:
            async with asyncio.timeout(limit_s):
                length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
                if length > MAX_FRAME_BYTES:
                    raise Unavailable("link.cut", f"{self._host} sends what is too long: {length} bytes")
                return await self._reader.readexactly(length)
        except (OSError, EOFError) as error:
            why = "it says nothing" if isinstance(error, TimeoutError) else str(error)
            raise Unavailable("link.cut", f"the link with {self._host} has ended: {why}") from error

    def close(self) -> None:
        """See `LinkEnd.close`."""
        self._writer.transport.abort()


class TlsBusLinks(BusLinkDoor):
    """Belongs to the event loop it is used in."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._place: tuple[str, int] = ("", 0)
        self._identity: LinkIdentity | None = None
        self._accept: Accept | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, port: int, identity: LinkIdentity, accept: Accept) -> int:
        """See `BusLinkDoor.listen`."""
        self._accept = accept
        if self._server is not None and self._place == (address, port) and self._identity == identity:
            return port
        context = _context(identity, server=True)
        # What is open has shown a certificate that held then: who is revoked since has to show it again.
        await self.close()
        try:
            server = await asyncio.start_server(
                self._came,
                address,
                port,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S,
                limit=_BUFFER_BYTES,
                backlog=16,
            )
        except OSError as error:
            message = f"cannot listen at {address}:{port}: {error.strerror or error}"
            raise Unavailable("link.unavailable", message) from error
        bound = int(server.sockets[0].getsockname()[1])
        self._server, self._place, self._identity = server, (address, bound), identity
        return bound

    async def dial(self, address: str, port: int, identity: LinkIdentity, host: str) -> LinkEnd:
        """See `BusLinkDoor.dial`."""
        context = _context(identity, server=False)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                reader, writer = await asyncio.open_connection(
                    address,
                    port,
                    ssl=context,
                    server_hostname=link_name(host, identity.domain),
                    limit=_BUFFER_BYTES,
                )
        except ssl.SSLError as error:
            raise Untrusted("link.untrusted", f"{host} at {address}:{port}: {error}") from error
        except OSError as error:
            raise Unavailable("link.unreachable", f"{host} at {address}:{port}: {error}") from error
        if _host_of(writer, identity) != host:
            writer.transport.abort()
            raise Untrusted("link.untrusted", f"somebody else than {host} answers at {address}:{port}")
        return TlsLinkEnd(host, reader, writer)

    async def close(self) -> None:
        """See `BusLinkDoor.close`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        open_now = list(self._open)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        identity, accept = self._identity, self._accept
        task = asyncio.current_task()
        host = _host_of(writer, identity) if identity is not None else ""
        if not host or accept is None or task is None or len(self._open) >= MAX_LINKS:
            peer = writer.get_extra_info("peername")
            _log.info("bus_link.refused", address=str(peer[0]) if peer else "", links=len(self._open))
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await accept(TlsLinkEnd(host, reader, writer))
        except asyncio.CancelledError:
            pass  # this is the link's own task, and it is ended with the door
        except SkerryError as error:
            _log.info("bus_link.ended", neighbour=host, code=error.code, reason=error.message)
        finally:
            self._open.discard(task)
            writer.transport.abort()


def _context(identity: LinkIdentity, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(identity.certificate, identity.key)
        context.load_verify_locations(identity.authorities)
        if identity.revoked.exists() and identity.revoked.stat().st_size:
            context.load_verify_locations(identity.revoked)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    except (OSError, ssl.SSLError) as error:
        raise Unavailable("bus.certificate", f"the link's certificate cannot be read: {error}") from error
    return context


def _host_of(writer: asyncio.StreamWriter, identity: LinkIdentity) -> str:
    """Return which host of this site is at the other end; empty where it is none."""
    shown: dict[str, Any] = writer.get_extra_info("peercert") or {}
    names: tuple[tuple[str, str], ...] = shown.get("subjectAltName", ())
    issuer = {key: value for part in shown.get("issuer", ()) for key, value in part}
    for kind, name in names:
        host, _, rest = name.partition(".")
        if kind == "DNS" and rest == f"bus.{identity.domain}":
            uri = link_uri(host, identity.site, identity.trust_domain)
            is_its_own = str(issuer.get("commonName", "")).startswith(f"{host[:_NAMED_BY_ISSUER]} ")
            return host if ("URI", uri) in names and is_its_own else ""
    return ""
