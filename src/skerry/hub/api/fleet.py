"""Sites, hosts, join tokens and events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.api.recovery import held_view
from skerry.hub.api.relays import entry_address
from skerry.hub.services import Hub
from skerry.hub.site_health import judge_sites
from skerry.hub.views import view_host, view_site
from skerry.kit.errors import Conflict, Rejected
from skerry.kit.ids import new_secret
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import HostRecord, JoinTokenRecord, SiteRecord
from skerry.spec.api import EventView, HostView, JoinTokenAnswer, JoinTokenRequest, SiteView
from skerry.spec.carrier import JoinToken
from skerry.trust.tokens import encode_join_token, hash_secret


@get("/sites", sync_to_thread=True)
def list_sites(hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*") -> list[SiteView]:
    """List sites that a label selector matches."""
    chosen = parse_selector(selector)
    views = _site_views(hub, seen.sites(), hub.store.hosts())
    return [view for view in views if chosen.matches(view.name, view.labels)]


@get("/sites/{name:str}", sync_to_thread=True)
def show_site(name: FromPath[str], hub: TheHub, seen: TheSeen) -> SiteView:
    """Show one site."""
    return _site_views(hub, [seen.site(name)], hub.store.hosts(name))[0]


@delete("/sites/{name:str}")
async def remove_site(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> None:
    """Forget a site that has no hosts."""
    await asyncio.to_thread(seen.site, name)
    await asyncio.to_thread(
        hub.store.remove_site, name, audit_of(hub, request, "site.remove", f"site:{name}")
    )
    hub.issuer.forget(name)


@post("/sites/{name:str}/join-tokens", sync_to_thread=True)
def create_join_token(
    name: FromPath[str], data: JSONBody[JoinTokenRequest], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> JoinTokenAnswer:
    """Make a join token; it is shown this once."""
    seen.site(name)
    if data.replaces and seen.host(data.replaces).site != name:
        raise Conflict("host.other_site", f"host {data.replaces} is not at site {name}")
    if data.replaces and data.uses != 1:
        raise Rejected("join.one_replacement", "a token that replaces a host is for one use")
    address = entry_address(hub, data.via)
    now = hub.clock.now()
    secret = new_secret("join")
    expires_at = now + timedelta(seconds=data.ttl_s)
    record = JoinTokenRecord(
        hash=hash_secret(secret),
        site=name,
        created_at=now,
        expires_at=expires_at,
        uses_left=data.uses,
        replaces=data.replaces,
    )
    subject = f"host:{data.replaces}" if data.replaces else f"site:{name}"
    action = "host.token" if data.replaces else "site.token"
    hub.store.add_join_token(record, audit_of(hub, request, action, subject))
    token = JoinToken(
        hub=address,
        site=name,
        root=hub.repository.root_digest,
        secret=secret,
        expires_at=expires_at,
        host=data.replaces,
    )
    return JoinTokenAnswer(token=encode_join_token(token), site=name, expires_at=expires_at, uses=data.uses)


@get("/hosts", sync_to_thread=True)
def list_hosts(hub: TheHub, seen: TheSeen, site: FromQuery[str | None] = None) -> list[HostView]:
    """List hosts, of one site or all."""
    sites = {record.name: record for record in seen.sites()}
    now, quarantine = hub.clock.now(), hub.backend.identities.quarantine
    return [
        view_host(host, sites[host.site], now, quarantine=quarantine(host.name))
        for host in hub.backend.presence.fresh(hub.store.hosts(site))
        if host.site in sites
    ]


@get("/hosts/{name:str}", sync_to_thread=True)
def show_host(name: FromPath[str], hub: TheHub, seen: TheSeen) -> HostView:
    """Show one host."""
    (host,) = hub.backend.presence.fresh([seen.host(name)])
    quarantine = hub.backend.identities.quarantine(name)
    return view_host(host, seen.site(host.site), hub.clock.now(), quarantine=quarantine)


@delete("/hosts/{name:str}")
async def remove_host(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> None:
    """Forget a host: it may not sync any more. What runs there runs on."""
    host = await asyncio.to_thread(seen.host, name)
    await asyncio.to_thread(
        hub.store.remove_host, name, audit_of(hub, request, "host.remove", f"host:{name}")
    )
    hub.backend.forget_host(name)
    await hub.issuer.issue(host.site)
    hub.rollouts.wake()


@get("/events", sync_to_thread=True)
def list_events(
    seen: TheSeen, site: FromQuery[str] = "", host: FromQuery[str] = "", limit: FromQuery[int] = 100
) -> list[EventView]:
    """List what hosts told, the newest first."""
    records = seen.events(site=site, host=host, limit=max(1, min(limit, 1000)))
    return [
        EventView(id=r.id, host=r.host, site=r.site, received_at=r.received_at, event=r.event)
        for r in records
    ]


def _site_views(hub: Hub, sites: Sequence[SiteRecord], hosts: Sequence[HostRecord]) -> list[SiteView]:
    now = hub.clock.now()
    hosts = hub.backend.presence.fresh(hosts)
    assignments = hub.store.assignments()
    health = judge_sites(hub, sites, hosts, assignments, now=now)
    views: list[SiteView] = []
    for site in sites:
        own = [host for host in hosts if host.site == site.name]
        assigned = [one for one in assignments if one.site == site.name]
        held = held_view(hub, site.name, site.generation, own)
        views.append(view_site(site, own, assigned, now, held=held, health=health[site.name]))
    return views


HANDLERS = [
    list_sites,
    show_site,
    remove_site,
    create_join_token,
    list_hosts,
    show_host,
    remove_host,
    list_events,
]
