"""BusLinkDoor: the way between the buses of two hosts of one site, by certificates of the site.

Promises (tests/contract/test_bus_links.py):
- Both ends know for sure which host of this site the other is, before anything else is said.
- Who is no host of this site, or whose issuer is revoked, gets no further than the handshake.
- What is sent comes whole and in order, or the link ends. Frames are bounded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

MAX_FRAME_BYTES = 512 << 10


class LinkIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a host is to the others: its certificate, and whom it believes; PEM files.

    `domain` is that of the site, `trust_domain` that of all sites. `mark` is another one when the files hold something
    else.
    """

    host: str
    site: str
    domain: str
    trust_domain: str
    certificate: Path
    key: Path
    authorities: Path
    revoked: Path
    mark: str


def link_name(host: str, domain: str) -> str:
    """Return the DNS name that a host has on links."""
    return f"{host}.bus.{domain}"


def link_uri(host: str, site: str, trust_domain: str) -> str:
    """Return the URI that a host has on links. No application is ever given one of these."""
    return f"spiffe://{trust_domain}/site/{site}/host/{host}/bus"


class LinkEnd(Protocol):
    """One end of an open link; `host` is who is at the other."""

    @property
    def host(self) -> str:
        """Who is at the other end."""
        ...

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the other end does not take what was sent before.

        Raises:
            Unavailable: the link has ended (`link.cut`).
        """
        ...

    async def receive(self, *, limit_s: float) -> bytes:
        """Return the next frame.

        Raises:
            Unavailable: the link has ended, or nothing came in time (`link.cut`).
        """
        ...

    def close(self) -> None:
        """End it at once."""
        ...


Accept = Callable[[LinkEnd], Awaitable[None]]


class BusLinkDoor(Protocol):
    """Where a host lets others in, and by which it goes to them."""

    async def listen(self, address: str, port: int, identity: LinkIdentity, accept: Accept) -> int:
        """Listen at one address, and return the port; `accept` has each link from then on, until it returns.

        Another place or identity ends what is open; the same ones change nothing.

        Raises:
            Unavailable: it cannot listen there (`link.unavailable`), or the identity cannot be read
                (`bus.certificate`).
        """
        ...

    async def dial(self, address: str, port: int, identity: LinkIdentity, host: str) -> LinkEnd:
        """Open a link to a host that is to be at a place.

        Raises:
            Unavailable: nobody answers (`link.unreachable`), or the identity cannot be read (`bus.certificate`).
            Untrusted: somebody else answers, or refuses this host (`link.untrusted`).
        """
        ...

    async def close(self) -> None:
        """Listen no more, and end all links that were let in."""
        ...
