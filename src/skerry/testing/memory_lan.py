"""MemoryLan: a network for datagrams in one event loop, whose links a test cuts and mends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from skerry.kit.errors import Unavailable
from skerry.ports.neighbours import Datagrams


class MemoryLan:
    """Machines by address; `cut` holds (source, target) addresses between which nothing passes."""

    def __init__(self) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.sent: list[tuple[str, str, bytes]] = []
        self._listening: dict[str, Callable[[bytes], None]] = {}
        self._ports = itertools.count(40000)

    def machine(self, *addresses: str) -> MemoryDatagrams:
        """Return the endpoint of a machine; the first of its addresses is on the way to everywhere."""
        return MemoryDatagrams(self, list(addresses))

    @property
    def listening(self) -> set[str]:
        """Where somebody listens."""
        return set(self._listening)

    def listen(self, host: str, port: int, on_datagram: Callable[[bytes], None]) -> str:
        """Let a machine listen."""
        port = port or next(self._ports)
        place = f"{host}:{port}"
        if place in self._listening:
            raise Unavailable("lan.unavailable", f"cannot listen at {place}: Address already in use")
        self._listening[place] = on_datagram
        return place

    def leave(self, place: str) -> None:
        """Let nobody listen there any more."""
        self._listening.pop(place, None)

    def carry(self, source: str, target: str, datagram: bytes) -> None:
        """Bring a datagram to whoever listens, a moment later."""
        self.sent.append((source, target, datagram))
        if (source.rpartition(":")[0], target.rpartition(":")[0]) not in self.cut:
            asyncio.get_running_loop().call_soon(self._arrive, target, datagram)

    def _arrive(self, target: str, datagram: bytes) -> None:
        if target in self._listening:
            self._listening[target](datagram)


class MemoryDatagrams(Datagrams):
    """One machine's endpoint; `addresses` may change, as DHCP changes them."""

    def __init__(self, lan: MemoryLan, addresses: list[str]) -> None:
        self._lan = lan
        self.addresses = addresses
        self._place = ""

    async def open(self, host: str, port: int, on_datagram: Callable[[bytes], None]) -> str:
        self.close()
        if host not in self.addresses:
            raise Unavailable(
                "lan.unavailable", f"cannot listen at {host}:{port}: Cannot assign requested address"
            )
        self._place = self._lan.listen(host, port, on_datagram)
        return self._place

    def send(self, address: str, datagram: bytes) -> None:
        if self._place and self._place.rpartition(":")[0] in self.addresses:
            self._lan.carry(self._place, address, datagram)

    def close(self) -> None:
        self._lan.leave(self._place)
        self._place = ""

    async def own_address(self, towards: str) -> str:
        return self.addresses[0] if self.addresses else ""
