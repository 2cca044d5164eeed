"""Datagrams: the way to the other hosts of a site, over their own network. Lossy, in any order, believed by nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Datagrams(Protocol):
    """One endpoint for small datagrams, in one event loop. Nothing listens before `open` and after `close`."""

    async def open(self, host: str, port: int, on_datagram: Callable[[bytes], None]) -> str:
        """Listen at this address alone and return it as `host:port`; port 0 takes a free one.

        `on_datagram` is called in the event loop for whatever arrives, from whomever. An endpoint that is open
        is closed first.

        Raises:
            Unavailable: the address is not this machine's or the port is taken (`lan.unavailable`).
        """
        ...

    def send(self, address: str, datagram: bytes) -> None:
        """Send to `host:port`. Never blocks and never raises: what cannot be sent is lost, as on the way."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...

    async def own_address(self, towards: str) -> str:
        """Return this machine's address on the way to a host, without a port; empty when there is no way.

        Sends nothing to it. Takes two seconds at the most.
        """
        ...
