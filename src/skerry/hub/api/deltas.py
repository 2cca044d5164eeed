"""Deliveries: what changed between releases, what bringing one to sites takes, and making the deltas that tell."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.traffic import diff_releases, explain_delivery, forecast_traffic, order_deltas
from skerry.spec.api_delivery import DeltaOrder, DeltaOrdered, HostDelivery, ReleaseDiff, TrafficPreview


@get("/releases/{name:str}/diff")
async def show_diff(name: FromPath[str], hub: TheHub, old: FromQuery[str]) -> ReleaseDiff:
    """Say what changed from another release to this one, and what its files take in full, compressed and by delta."""
    return await diff_releases(hub, old, name)


@get("/releases/{name:str}/traffic")
async def show_traffic(
    name: FromPath[str], hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*"
) -> TrafficPreview:
    """Say what the hosts of selected sites would fetch of a release, and how long their links take for it."""
    return await forecast_traffic(hub, name, seen.scope.narrow(selector))


@get("/releases/{name:str}/delivery")
async def show_delivery(
    name: FromPath[str], hub: TheHub, seen: TheSeen, host: FromQuery[str]
) -> HostDelivery:
    """Say, file by file, how a release would come to a host, and what each way takes."""
    await asyncio.to_thread(seen.host, host)
    return await explain_delivery(hub, name, host)


@post("/releases/{name:str}/deltas", status_code=202)
async def make_deltas(
    name: FromPath[str], hub: TheHub, seen: TheSeen, data: JSONBody[DeltaOrder]
) -> DeltaOrdered:
    """Have the deltas made that a diff or a preview of traffic tells the sizes of; again says how far that is."""
    if not data.old:
        data = msgspec.structs.replace(data, selector=seen.scope.narrow(data.selector))
    return await order_deltas(hub, name, data)


HANDLERS: list[Any] = [show_diff, show_traffic, show_delivery, make_deltas]
