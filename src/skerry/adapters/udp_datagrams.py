"""UdpDatagrams: heartbeats over UDP, one socket bound to one address of the machine."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable

from skerry.kit.errors import Unavailable
from skerry.ports.neighbours import Datagrams

RESOLVE_S = 2.0
BUFFER_BYTES = 256 << 10
READ_BYTES = 2048  # more than any heartbeat: a larger datagram is cut, and seen to be too large
READ_AT_ONCE = 64
# Reserved for documentation (RFC 5737) and nowhere in use: the way to it is the default route.
SOMEWHERE = "192.0.2.1"


class UdpDatagrams(Datagrams):
    """A plain socket that never blocks. The kernel's buffers are the only queues, and what overflows is lost."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    async def open(self, host: str, port: int, on_datagram: Callable[[bytes], None]) -> str:
        self.close()
        loop = asyncio.get_running_loop()
        bare = host.strip("[]")
        opened = socket.socket(_family(bare), socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            opened.bind((bare, port))
        except (OSError, OverflowError) as error:
            opened.close()
            message = (
                f"cannot listen at {join_address(bare, port)}: {getattr(error, 'strerror', '') or error}"
            )
            raise Unavailable("lan.unavailable", message) from error
        loop.add_reader(opened.fileno(), _read, opened, on_datagram)
        self._socket = opened
        name = opened.getsockname()
        return join_address(str(name[0]), int(name[1]))

    def send(self, address: str, datagram: bytes) -> None:
        host, _, port = address.rpartition(":")
        # A name would be looked up here, and block: only numbers get that far.
        with contextlib.suppress(OSError, ValueError, OverflowError):
            bare = str(ipaddress.ip_address(host.strip("[]")))
            if self._socket is not None and self._socket.family == _family(bare):
                self._socket.sendto(datagram, (bare, int(port)))

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    async def own_address(self, towards: str) -> str:
        loop = asyncio.get_running_loop()
        places: list[tuple[socket.AddressFamily, str]] = []
        # Without a name or a route the next place is tried; with none there is no address to tell.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(RESOLVE_S):
                found = await loop.getaddrinfo(towards.strip("[]"), 9, type=socket.SOCK_DGRAM)
                places = [(family, str(place[0])) for family, _, _, _, place in found]
        for family, place in [*places, (socket.AF_INET, SOMEWHERE)]:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.setblocking(False)
                probe.connect((place, 9))
                return str(probe.getsockname()[0])
        return ""


def _read(opened: socket.socket, on_datagram: Callable[[bytes], None]) -> None:
    """Hand over what has arrived, so much of it that others get their turn."""
    for _ in range(READ_AT_ONCE):
        try:
            datagram = opened.recv(READ_BYTES)
        except OSError:
            return  # nothing more, or an error of the network such as a refused datagram: a loss like any other
        on_datagram(datagram)
        if opened.fileno() < 0:
            return  # closed meanwhile


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
