"""Names: a host's own DNS, and its announcements to the network.

Promises every adapter keeps (tests/contract/test_name_server.py, tests/contract/test_announcer.py):
- Only what `answer` says is said of the site's names, by UDP and by TCP; the rest is asked of the upstreams, and where
  none of them answers the client is told so soon.
- Nobody but programs and machines nearby (loopback, link-local and private addresses) gets any answer.
- Sizes, clients, connections and what is asked of upstreams are bounded.
- What is announced is withdrawn when it is named no more, and at `close`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from skerry.matching.names import Asked, ZoneAnswer

Answer = Callable[[Asked], ZoneAnswer | None]


class ServicePlace(msgspec.Struct, frozen=True):
    """A service to be announced: `kind` such as `_skerry-reader._tcp`, the name of this one of it, and its port."""

    kind: str
    name: str
    port: int
    text: tuple[tuple[str, str], ...] = ()


class NameServer(Protocol):
    """A DNS server in one event loop."""

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it listens now, as `HOST:PORT`."""
        ...

    async def serve(self, places: Sequence[str], upstreams: Sequence[str], answer: Answer) -> None:
        """Listen at these places (`HOST:PORT`, port 0 takes a free one) and no others.

        What is open already stays open. `answer` returns None for what upstreams (`HOST:PORT`, in their order)
        are to be asked.

        Raises:
            Unavailable: a place cannot be listened at (`names.unavailable`), or the library is not installed
                (`names.missing`); the other places are served.
        """
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class Announcer(Protocol):
    """Tells the network which services there are, by multicast DNS (RFC 6762, 6763)."""

    async def announce(self, address: str, host: str, services: Sequence[ServicePlace]) -> None:
        """Announce these services of `host` at this IP address, and no others.

        Raises:
            Unavailable: this machine cannot do that here (`names.no_multicast`, `names.missing`).
        """
        ...

    async def close(self) -> None:
        """Take back what was announced."""
        ...
