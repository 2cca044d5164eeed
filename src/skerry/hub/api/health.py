"""How sites are, in a word with reasons."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get
from litestar.params import FromQuery

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.site_health import judge_sites
from skerry.matching.selector import parse_selector
from skerry.spec.api_health import SiteHealth
from skerry.spec.site import Site


@get("/health", sync_to_thread=True)
def list_health(
    hub: TheHub, seen: TheSeen, site: FromQuery[str] = "", selector: FromQuery[str] = "*"
) -> list[SiteHealth]:
    """Say how sites are: one of them, or those that a label selector matches."""
    chosen = parse_selector(selector)
    records = [seen.site(site)] if site else seen.sites()
    labels = {
        record.name: dict(msgspec.json.decode(record.document, type=Site).metadata.labels)
        for record in records
    }
    sites = [record for record in records if chosen.matches(record.name, labels[record.name])]
    names = {record.name for record in sites}
    hosts = [host for host in hub.store.hosts(site or None) if host.site in names]
    assigned = hub.store.assignments(site or None)
    found = judge_sites(hub, sites, hub.backend.presence.fresh(hosts), assigned, now=hub.clock.now())
    return [
        SiteHealth(site=record.name, labels=labels[record.name], health=found[record.name])
        for record in sites
    ]


HANDLERS: list[Any] = [list_health]
