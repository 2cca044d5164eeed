"""ZeroconfAnnouncer: says which applications there are by multicast DNS, as DNS-SD services. Needs the extra `names`.

A service's kind may be longer than the 15 characters that RFC 6763 allows to registered ones: it has the application's
name in it. Every implementation that the tests know takes it.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from typing import Any

from skerry.kit.errors import Unavailable
from skerry.ports.names import Announcer, ServicePlace


class ZeroconfAnnouncer(Announcer):
    """Announces at one address; only what changed is announced or taken back."""

    def __init__(self) -> None:
        self._network: Any = None
        self._at = ("", "")
        self._told: dict[ServicePlace, Any] = {}

    async def announce(self, address: str, host: str, services: Sequence[ServicePlace]) -> None:
        if (address, host) != self._at or not services:
            await self.close()
        if not services:
            return
        try:
            # 15 MB, and needed only where it is asked for.
            from zeroconf import IPVersion
            from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
        except ImportError as error:
            raise Unavailable(
                "names.missing", "announcing needs zeroconf", hint="pip install 'skerry[names]'"
            ) from error
        try:
            if self._network is None:
                only = IPVersion.V6Only if ":" in address else IPVersion.V4Only
                self._network, self._at = (
                    AsyncZeroconf(interfaces=[address], ip_version=only),
                    (address, host),
                )
            for gone in [one for one in self._told if one not in services]:
                await (await self._network.async_unregister_service(self._told.pop(gone)))
            for new in [one for one in services if one not in self._told]:
                kind = f"{new.kind}.local."
                info = AsyncServiceInfo(
                    kind,
                    f"{new.name}.{kind}",
                    port=new.port,
                    addresses=[ipaddress.ip_address(address).packed],
                    server=f"{host}.local.",
                    properties=dict(new.text),
                )
                # The first says it once, the second waits until it has been said often enough.
                await (await self._network.async_register_service(info, strict=False))
                self._told[new] = info
        except Exception as error:
            # Whatever hinders it (OSError, zeroconf's own): applications run on, and are found by their names.
            await self.close()
            raise Unavailable("names.no_multicast", f"multicast DNS does not work here: {error}") from error

    async def close(self) -> None:
        network, self._network = self._network, None
        told, self._told, self._at = self._told, {}, ("", "")
        if network is None:
            return
        with contextlib.suppress(Exception):
            for info in told.values():
                await (await network.async_unregister_service(info))
        with contextlib.suppress(Exception):
            await network.async_close()
