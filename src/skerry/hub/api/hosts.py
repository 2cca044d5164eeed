"""Hosts in quarantine, because two machines reported with the keys of one: let them go on."""

from __future__ import annotations

import asyncio

from litestar import post
from litestar.params import FromPath

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.views import view_host
from skerry.spec.api import HostView


@post("/hosts/{name:str}/readmit", status_code=200)
async def readmit_host(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> HostView:
    """End a host's quarantine. If two machines still use its identity, it is found again."""
    host = await asyncio.to_thread(seen.host, name)
    await hub.backend.readmit(name, audit_of(hub, request, "host.readmit", f"host:{name}"))
    site = await asyncio.to_thread(seen.site, host.site)
    return view_host(host, site, hub.clock.now())


HANDLERS = [readmit_host]
