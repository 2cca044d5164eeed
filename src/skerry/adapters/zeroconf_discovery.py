"""ZeroconfDiscovery: finds the hosts of a network by multicast DNS, as `_skerry._tcp`. Needs the extra `lan`.

What is announced is the port of the heartbeats and the tag of the host's key; no name of host or site. Whoever is on
the network can announce anything: an address is tried, and a signed heartbeat says who is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import Awaitable, Callable

from skerry.kit.errors import Unavailable
from skerry.ports.discovery import Announced, Discovery

TYPE = "_skerry._tcp.local."
ASK_MS = 3000
MAX_ASKING = 16
_name_re = re.compile(r"^([0-9a-f]{16})\._skerry\._tcp\.local\.$")


class ZeroconfDiscovery(Discovery):
    """Listens and announces at the address of the heartbeats alone."""

    def __init__(self) -> None:
        self._closing: Callable[[], asyncio.Future[None] | asyncio.Task[None]] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    async def open(self, own: Announced, on_found: Callable[[Announced], None]) -> None:
        await self.close()
        try:
            # 15 MB, and needed only where it is asked for.
            from zeroconf import IPVersion, ServiceStateChange
            from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf
        except ImportError as error:
            raise Unavailable(
                "lan.no_multicast", "multicast DNS needs zeroconf", hint="pip install 'skerry[lan]'"
            ) from error
        host, _, port = own.address.rpartition(":")
        address = ipaddress.ip_address(host.strip("[]"))
        version = IPVersion.V6Only if address.version == 6 else IPVersion.V4Only
        info = AsyncServiceInfo(
            TYPE,
            f"{own.tag}.{TYPE}",
            port=int(port),
            addresses=[address.packed],
            server=f"skerry-{own.tag}.local.",
        )
        network: AsyncZeroconf | None = None
        try:
            network = AsyncZeroconf(interfaces=[str(address)], ip_version=version)
            # Its type says only that it can be awaited.
            announcing: Awaitable[object] = await network.async_register_service(info)  # pyright: ignore[reportUnknownVariableType]
        except Exception as error:
            # Whatever hinders it (OSError, zeroconf's own): hosts are still found by their stated addresses.
            if network is not None:
                await network.async_close()
            raise Unavailable("lan.no_multicast", f"multicast DNS does not work here: {error}") from error

        async def ask(name: str, tag: str) -> None:
            found = AsyncServiceInfo(TYPE, name)
            if await found.async_request(network.zeroconf, ASK_MS) and found.port:
                for one in found.parsed_addresses(version)[:4]:
                    on_found(Announced(tag, f"[{one}]:{found.port}" if ":" in one else f"{one}:{found.port}"))

        def changed(name: str, state_change: ServiceStateChange, **_: object) -> None:
            match = _name_re.match(name)
            if match is None or match[1] == own.tag or state_change is ServiceStateChange.Removed:
                return
            if len(self._asking) < MAX_ASKING:
                task = asyncio.ensure_future(ask(name, match[1]))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

        browser = AsyncServiceBrowser(network.zeroconf, TYPE, handlers=[changed])

        async def end() -> None:
            with contextlib.suppress(Exception):
                await announcing
                await browser.async_cancel()
                await network.async_unregister_service(info)
            await network.async_close()

        self._closing = lambda: asyncio.ensure_future(end())

    async def close(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            for task in list(self._asking):
                task.cancel()
            await closing()
