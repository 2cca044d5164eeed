"""Routes: how they stand at hosts, and what answers a request at a site."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.params import FromPath, FromQuery

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.routing import standings
from skerry.kit.errors import Rejected
from skerry.matching.route_trace import parse_url, trace_route
from skerry.spec.api_ingress import RouteExplanation, RouteStanding

MAX_URL = 2048


@get("/routes", sync_to_thread=True)
def list_routes(
    hub: TheHub, seen: TheSeen, site: FromQuery[str] = "", application: FromQuery[str] = ""
) -> list[RouteStanding]:
    """List the routes of hosts, of one site or all, with what clients saw of them in the last hour."""
    found = standings(hub, seen.hosts(site or None), hub.clock.now())
    return [one for one in found if application in ("", one.route.application)]


@get("/sites/{name:str}/route", sync_to_thread=True)
def explain_route(name: FromPath[str], url: FromQuery[str], seen: TheSeen) -> RouteExplanation:
    """Say what answers a request at a site, hop by hop."""
    seen.site(name)
    if len(url) > MAX_URL:
        raise Rejected("route.url", f"longer than {MAX_URL} characters")
    hosts = seen.hosts(name)
    routes = {host.name: host.observed.routes if host.observed else () for host in hosts}
    times = [host.observed_at for host in hosts if host.observed_at is not None]
    return RouteExplanation(
        url=url, site=name, as_of=min(times, default=None), trace=trace_route(parse_url(url), name, routes)
    )


HANDLERS: list[Any] = [list_routes, explain_route]
