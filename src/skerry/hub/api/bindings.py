"""Bindings: what an application is joined to at a site, and why."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get
from litestar.params import FromPath

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.services import Hub
from skerry.kit.errors import Missing
from skerry.matching.bindings import BindingChoice, describe_need, match_bindings, site_lacks
from skerry.ports.hub_store import HostRecord
from skerry.spec.api_binding import BindingDecision, HostJoined
from skerry.spec.release import Release
from skerry.spec.site import Site


@get("/sites/{name:str}/bindings/{application:str}", sync_to_thread=True)
def explain_binding(
    name: FromPath[str], application: FromPath[str], hub: TheHub, seen: TheSeen
) -> BindingDecision:
    """Say what an application is joined to at a site, on each of its hosts, and why."""
    record = seen.site(name)
    site = msgspec.json.decode(record.document, type=Site)
    release = _release(hub, name, application)
    hosts = hub.store.hosts(name)
    needs, offered = release.application.spec.needs, site.spec.bindings
    return BindingDecision(
        application=application,
        site=name,
        release=release.name,
        needs=tuple(describe_need(need) for need in needs),
        offered=len(offered),
        hosts=tuple(_joined(host, release, site) for host in hosts),
        excluded=site_lacks(needs, offered, [host.name for host in hosts]),
    )


def _release(hub: Hub, site: str, application: str) -> Release:
    assigned = {one.application: one.release for one in hub.store.assignments(site)}
    records = [one for one in hub.store.releases() if one.application == application]
    chosen = hub.store.release(assigned[application]) if application in assigned else None
    chosen = chosen or max(records, key=lambda one: one.created_at, default=None)
    if chosen is None:
        hint = "skerry get apps lists them"
        raise Missing("app.missing", f"there is no application {application[:80]}", hint=hint)
    return msgspec.json.decode(chosen.document, type=Release)


def _joined(host: HostRecord, release: Release, site: Site) -> HostJoined:
    answer = match_bindings(release.application.spec.needs, site.spec.bindings, host=host.name)
    if not isinstance(answer, BindingChoice):
        return HostJoined(host=host.name, reasons=answer.reasons)
    views = host.observed.bindings if host.observed else {}
    names = {need: one.name for need, one in answer.bindings.items()}
    seen = {one: views[one] for one in names.values() if one in views}
    return HostJoined(host=host.name, bindings=names, why=answer.why, seen=seen)


HANDLERS: list[Any] = [explain_binding]
