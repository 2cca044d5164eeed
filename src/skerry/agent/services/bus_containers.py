"""The bus for containers with networks of their own: a door with TLS at this host's address in each of them.

The broker stays on the loopback address. The door is the agent's: while the agent is away, containers are cut off, and
come again. Which addresses those are, the engine says; each exists only while a container is in its network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from skerry.agent.site_ca import CertificateFiles, LocalCertificates, Wanted
from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.broker import BusTls
from skerry.ports.bus_door import BusDoor
from skerry.ports.clock import Clock
from skerry.spec.ingress import SHORT_DOMAIN

BUS_NAME = f"bus.host.{SHORT_DOMAIN}"
"""What a container calls the bus of its host; two labels before the site's, so that no application has that name."""
CERTIFICATE = "bus"
LOOK_S = 10.0

Gateways = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]


class ContainerParts(msgspec.Struct, frozen=True, kw_only=True):
    """What it works with; `gateways` are this host's addresses by network."""

    door: BusDoor
    gateways: Gateways
    local: LocalCertificates
    clock: Clock


class ContainerSide:
    """What containers have of the bus. The certificate is asked for while somebody needs it."""

    def __init__(self, parts: ContainerParts) -> None:
        self._parts = parts
        self._files: CertificateFiles | None = None
        self._networks: frozenset[str] = frozenset()
        self._looked_at = float("-inf")
        self._found: Mapping[str, str] = {}
        self._open = False
        self.trouble = ""

    def follow(self, networks: AbstractSet[str], *, needed: bool) -> None:
        """Take which networks have containers that use the bus; `needed`, one is here or is to be."""
        if frozenset(networks) != self._networks:
            self._networks, self._looked_at = frozenset(networks), float("-inf")
        wanted = Wanted(CERTIFICATE, dns=(BUS_NAME,), client=False)
        self._files = self._parts.local.ask(wanted) if needed else None

    @property
    def lacking(self) -> str:
        """Why containers cannot come to the bus; empty when they can."""
        if self._files is None:
            return (
                f"there is no certificate for it: {self._parts.local.why(CERTIFICATE) or 'not asked for yet'}"
            )
        return ""

    def authorities(self) -> bytes:
        """Return whom containers are to trust, PEM.

        Raises:
            Unavailable: it cannot be read now (`bus.certificate`).
        """
        try:
            return self._files.bundle.read_bytes() if self._files is not None else b""
        except OSError as error:
            raise Unavailable("bus.certificate", f"cannot read {error.filename}: {error.strerror}") from error

    async def step(self, port: int, to: int) -> None:
        """Have the door listen at `port` where it has to, for the broker at port `to` of the loopback address."""
        if self._files is None or not self._networks:
            if self._open:
                await self._parts.door.close()
            self._open, self.trouble = False, ""
            return
        tls = BusTls(self._files.cert, self._files.key, self._files.bundle, self._files.mark)
        try:
            troubles = await self._parts.door.serve(await self._addresses(), port, tls=tls, to=to)
        except SkerryError as error:
            self.trouble = error.message
            return
        self._open = True
        self.trouble = next((troubles[address] for address in sorted(troubles)), "")

    async def _addresses(self) -> set[str]:
        """Return where containers look for this host; the engine is asked when networks change, and now and then."""
        now = self._parts.clock.monotonic()
        if now - self._looked_at >= LOOK_S or self._networks - self._found.keys():
            self._found = await self._parts.gateways(sorted(self._networks))
            self._looked_at = now
        return {address for name, address in self._found.items() if name in self._networks}

    async def close(self) -> None:
        """Close the door."""
        await self._parts.door.close()
