"""BusDoor: lets containers of this host come to its broker, which listens on the loopback address alone.

Promises (tests/contract/test_bus_door.py):
- It listens at exactly the addresses it was told, with TLS alone, and brings connections to the broker alone.
- Another certificate is for connections that begin from then on; those that are open stay.
- Connections are bounded, and who does not finish its handshake or says nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from skerry.ports.broker import BusTls


class BusDoor(Protocol):
    """One host's door. It ends with its caller; clients connect again."""

    async def serve(
        self, addresses: Collection[str], port: int, *, tls: BusTls, to: int
    ) -> Mapping[str, str]:
        """Listen at exactly these addresses of this host, at one port, for the broker at port `to` of the loopback.

        Returns why it cannot listen, by address, where it cannot; it is tried again at the next call.

        Raises:
            Unavailable: the certificate cannot be read (`bus.certificate`).
        """
        ...

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        ...
