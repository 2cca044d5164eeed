"""Volumes: what assigned releases declare, and asking that they be emptied.

The hub cannot empty anything: it raises a count in the desired state, and each host that hears of it does so once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.services import Hub
from skerry.ports.hub_store import AssignmentRecord
from skerry.spec.api import VolumesView, VolumeView, WipeAnswer
from skerry.spec.release import Release


@get("/volumes", sync_to_thread=True)
def list_volumes(hub: TheHub, seen: TheSeen, site: FromQuery[str] = "") -> list[VolumesView]:
    """List the volumes that assigned releases declare, at one site or all, by site and application."""
    if site:
        seen.site(site)
    names = seen.names()
    assigned = [record for record in hub.store.assignments(site or None) if record.site in names]
    wipes = {name: hub.store.wipes(name) for name in {record.site for record in assigned}}
    volumes = {name: _declared(hub, name) for name in {record.release for record in assigned}}
    return [
        VolumesView(
            site=record.site,
            application=record.application,
            release=record.release,
            hosts=_hosts(hub, record),
            volumes=volumes[record.release],
            wipes=wipes[record.site].get(record.application, 0),
        )
        for record in assigned
    ]


@post("/sites/{name:str}/applications/{application:str}/wipe", status_code=200)
async def wipe_volumes(
    name: FromPath[str], application: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> WipeAnswer:
    """Ask the hosts of a site to empty an application's volumes, once, when each next hears of it."""
    if seen.scope.limited:
        await asyncio.to_thread(seen.site, name)
    audit = audit_of(hub, request, "volume.wipe", f"site:{name}/application:{application}")
    count = await asyncio.to_thread(hub.store.wipe_volumes, name, application, audit)
    await hub.issuer.issue(name)
    issued = await hub.issuer.issued(name)
    where = issued.where.get(application)
    return WipeAnswer(
        site=name,
        application=application,
        count=count,
        generation=issued.generation,
        hosts=tuple(sorted(where.hosts)) if where else (),
    )


def _hosts(hub: Hub, record: AssignmentRecord) -> tuple[str, ...]:
    where = hub.issuer.where(record.site, record.application)
    return tuple(sorted(where.hosts)) if where else ()


def _declared(hub: Hub, release: str) -> tuple[VolumeView, ...]:
    record = hub.store.release(release)
    if record is None:
        return ()
    document = msgspec.json.decode(record.document, type=Release)
    return tuple(
        VolumeView(component=component.name, name=volume.name, path=volume.path, size=volume.size)
        for component in document.application.spec.components
        for volume in component.volumes
    )


HANDLERS: list[Any] = [list_volumes, wipe_volumes]
