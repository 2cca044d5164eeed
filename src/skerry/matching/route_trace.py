"""What answers a request at a site, hop by hop: pure, from what hosts reported of their routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from skerry.kit.errors import Rejected
from skerry.spec.api_ingress import RouteHop, RouteTrace
from skerry.spec.ingress import RouteView

DEFAULT_PORTS = {"https": 443, "http": 80}


class Asked(msgspec.Struct, frozen=True):
    """A request: `tls` or not, to a name, a port (0 when none was written) and a path."""

    tls: bool
    name: str
    port: int
    path: str


def parse_url(text: str) -> Asked:
    """Return what a URL asks for.

    Raises:
        Rejected: it is no URL of http or https with a name (`route.url`).
    """
    try:
        parts = urlsplit(text)
        port = parts.port or 0
    except ValueError as error:
        raise Rejected("route.url", f"not a URL: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        hint = "such as https://reader.site.internal/read"
        raise Rejected("route.url", f"not a URL of http or https: {text[:200]}", hint=hint)
    return Asked(parts.scheme == "https", parts.hostname.rstrip("."), port, parts.path or "/")


def trace_route(asked: Asked, site: str, hosts: Mapping[str, Sequence[RouteView]]) -> RouteTrace:
    """Return which host, route, release and component answer a request at a site, and why; or what does not fit.

    `hosts` are the site's hosts with their routes as last reported.
    """
    hops: list[RouteHop] = []

    def end(outcome: str) -> RouteTrace:
        return RouteTrace(hops=tuple(hops), outcome=outcome)

    named = {
        host: [view for view in views if asked.name in view.names and view.protocol != "tcp"]
        for host, views in sorted(hosts.items())
    }
    having = [host for host, views in named.items() if views]
    if not having:
        others = sorted({name for views in hosts.values() for view in views for name in view.names})
        known = f"names there: {', '.join(others[:10])}" if others else "no route is there"
        hops.append(RouteHop("name", f"no host of {site} has a route named {asked.name}; {known}"))
        return end("nobody: the name leads nowhere")
    hops.append(RouteHop("name", f"{asked.name} leads to {', '.join(having)} of {site}"))
    serving: list[str] = []
    for host in having:
        answer = _at_host(asked, named[host])
        hops.extend(RouteHop(f"{host}: {hop.what}", hop.answer) for hop in answer[0])
        if answer[1]:
            serving.append(f"{host}: {answer[1]}")
    return end("; ".join(serving) if serving else "nobody: no host of it would pass the request on")


def _at_host(asked: Asked, views: Sequence[RouteView]) -> tuple[list[RouteHop], str]:
    hops: list[RouteHop] = []
    scheme = "https" if asked.tls else "http"
    fitting = [view for view in views if view.tls == asked.tls]
    if not fitting:
        other = "http" if asked.tls else "https"
        return [RouteHop("listener", f"its routes of that name are for {other}, not for {scheme}")], ""
    port = next((view.port for view in fitting if view.port), 0)
    if asked.port and port and asked.port != port:
        return [RouteHop("listener", f"{scheme} is on port {port}, not on {asked.port}")], ""
    hops.append(
        RouteHop("listener", f"{scheme} on port {port}" + ("; TLS with the site's certificate" * asked.tls))
    )
    matching = [view for view in fitting if leads(view.path, asked.path)]
    if not matching:
        paths = ", ".join(sorted(view.path for view in fitting))
        hops.append(RouteHop("path", f"no route has {asked.path}; there are {paths}: 404"))
        return hops, ""
    best = max(matching, key=lambda view: len(view.path.rstrip("/")))
    passed = sorted(view.path for view in matching if view is not best)
    longer = f", longer than {', '.join(passed)}" if passed else ""
    hops.append(RouteHop("path", f"route {best.route} of {best.application} has {best.path}{longer}"))
    if best.state == "refused":
        hops.append(RouteHop("route", f"it is not in force: {best.why}"))
        return hops, ""
    if best.expose == "host":
        hops.append(RouteHop("exposed", "to programs of the same host alone"))
    hops.append(RouteHop("clients", _CLIENTS[best.auth]))
    if best.state == "waiting":
        hops.append(RouteHop("backend", f"nobody: {best.why}: 503"))
        return hops, ""
    hops.append(
        RouteHop("backend", f"{best.backend}, {best.release}" + (f": {best.why}" if best.why else ""))
    )
    return hops, f"{best.release} at {best.backend}"


_CLIENTS = {
    "none": "everybody who reaches the host",
    "token": "who sends the token as Authorization: Bearer TOKEN; others get 401",
    "mtls": "who shows a certificate of the site that the route names; others get 403",
}


def leads(prefix: str, path: str) -> bool:
    """Tell whether a route's path takes a request's: it is the same, or the request's lies below it."""
    plain = prefix.rstrip("/")
    return path == plain or path.startswith(f"{plain}/")
