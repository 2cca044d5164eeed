"""Discovery: finding hosts of the same network by multicast. Only places are learnt, and none is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class Announced(msgspec.Struct, frozen=True):
    """Where a host says to listen for heartbeats (`host:port`), and the tag of its key in hexadecimal."""

    tag: str
    address: str


class Discovery(Protocol):
    """Announces this host and finds others, in one event loop."""

    async def open(self, own: Announced, on_found: Callable[[Announced], None]) -> None:
        """Announce, and call `on_found` in the event loop for whatever is found; what was open is closed first.

        Raises:
            Unavailable: this machine cannot do that here (`lan.no_multicast`).
        """
        ...

    async def close(self) -> None:
        """Take the announcement back."""
        ...
