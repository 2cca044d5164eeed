"""Which routes can stand side by side at one site, and which cannot: names, paths and ports are there once.

The same function looks ahead on the hub, before a rollout begins, and decides on the host. Of two that want the same
place the first by application and name has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from skerry.spec.application import ApplicationSpec, Component
from skerry.spec.facts import HostFacts
from skerry.spec.ingress import SHORT_DOMAIN, Route, route_names

MAX_NAME = 253
"""Of a host name: RFC 1035, 2.3.4, as text."""
HTTPS_PORT, HTTP_PORT = 443, 80
PROXY_FACT, HTTPS_FACT, HTTP_FACT, TAKEN_FACT = "ingress", "ingress.https", "ingress.http", "ports.taken"


class Claim(msgspec.Struct, frozen=True):
    """One application's routes at a site, and the ports of the host that its components have for themselves."""

    application: str
    routes: tuple[Route, ...] = ()
    fixed: frozenset[int] = frozenset()


class HostPorts(msgspec.Struct, frozen=True):
    """What a host listens on for names and paths, and which ports others than Skerry hold there, and who."""

    https: int = HTTPS_PORT
    http: int = HTTP_PORT
    taken: Mapping[int, str] = {}
    proxy: bool = True


class RouteConflict(msgspec.Struct, frozen=True):
    """Why a route of an application cannot be."""

    application: str
    route: str
    why: str


class _Wanted(msgspec.Struct, frozen=True):
    application: str
    route: Route
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"route {self.route.name} of {self.application}"


def claim_of(application: str, spec: ApplicationSpec) -> Claim:
    """Return what an application claims at each site it runs at."""
    return Claim(application, spec.ingress, fixed_ports(spec.components))


def fixed_ports(components: Iterable[Component]) -> frozenset[int]:
    """Return the ports of the host that components listen on by themselves."""
    own = (c for c in components if c.image is None or c.container.network == "host")
    return frozenset(port.port for component in own for port in component.ports if port.port)


def host_ports(facts: HostFacts) -> HostPorts:
    """Return what a host's facts say of its ports; what they do not say is as it is by default."""

    def number(name: str, default: int) -> int:
        fact = facts.get(name)
        return fact.value if fact is not None and type(fact.value) is int else default

    taken: dict[int, str] = {}
    fact = facts.get(TAKEN_FACT)
    for text in fact.value if fact is not None and isinstance(fact.value, tuple) else ():
        port, _, who = text.partition(" ")
        if port.isdigit():
            taken[int(port)] = who or "another program"
    return HostPorts(
        https=number(HTTPS_FACT, HTTPS_PORT),
        http=number(HTTP_FACT, HTTP_PORT),
        taken=taken,
        # A host that said nothing of itself yet is not held against anybody.
        proxy=PROXY_FACT in facts or not facts,
    )


def find_conflicts(
    claims: Sequence[Claim], hosts: Mapping[str, HostPorts], *, site: str, domain: str
) -> list[RouteConflict]:
    """Return the routes that cannot be at a site, each with the first reason found.

    `hosts` are those of the site that may run them; what speaks against a route at any of them speaks against it.
    """
    found: list[RouteConflict] = []
    held: dict[tuple[object, ...], str] = {
        ("port", port): f"a component of {claim.application} itself"
        for claim in claims
        for port in claim.fixed
    }
    wanted = [
        _Wanted(claim.application, route, route_names(route, claim.application, site, domain))
        for claim in sorted(claims, key=lambda one: one.application)
        for route in sorted(claim.routes, key=lambda one: one.name)
    ]
    for one in wanted:
        places = list(_places(one))
        taken = next((f"{_told(place)} belongs to {held[place]}" for place in places if place in held), "")
        why = _outside(one, site, domain) or taken or _against(one, hosts, held)
        if why:
            found.append(RouteConflict(one.application, one.route.name, why))
            continue
        held.update((place, one.title) for place in places)
    return found


def _places(one: _Wanted) -> Iterator[tuple[object, ...]]:
    """Yield what a route takes for itself at a site."""
    if one.route.protocol == "tcp":
        yield ("port", one.route.listen)
    else:
        for name in one.names:
            yield ("path", one.route.tls, name, one.route.path.rstrip("/"))
            if one.route.redirect:
                yield ("path", "plain", name, one.route.path.rstrip("/"))


def _told(place: tuple[object, ...]) -> str:
    return f"port {place[1]}" if place[0] == "port" else f"{place[2]}{place[3] or '/'}"


def _outside(one: _Wanted, site: str, domain: str) -> str:
    """Return why a name is none that the site's certificate may have."""
    own = f"{site}.{domain}"
    for name in one.names:
        if len(name) > MAX_NAME:
            return f"{name[:60]}... is longer than {MAX_NAME} characters"
        if not name.endswith((f".{own}", f".{SHORT_DOMAIN}")) and name != own:
            return f"{name} is outside the site's certificate, which is for names of {own} and {SHORT_DOMAIN}"
    return ""


def _against(one: _Wanted, hosts: Mapping[str, HostPorts], held: Mapping[tuple[object, ...], str]) -> str:
    """Return what on a host speaks against a route."""
    for host, ports in sorted(hosts.items()):
        if not ports.proxy:
            return f"host {host} has no proxy: install skerry[ingress], or envoy, there"
        if one.route.protocol == "tcp" and one.route.listen in (ports.https, ports.http):
            return f"port {one.route.listen} of host {host} is where its names and paths are"
        for needed in _needed(one.route, ports):
            if one.route.protocol != "tcp" and ("port", needed) in held:
                return f"port {needed} belongs to {held['port', needed]}"
            if needed in ports.taken:
                return f"port {needed} of host {host} is taken by {ports.taken[needed]}"
    return ""


def _needed(route: Route, ports: HostPorts) -> tuple[int, ...]:
    """Return the ports of a host that a route is listened for on."""
    if route.protocol == "tcp":
        return (route.listen or 0,)
    own = ports.https if route.tls == "site" else ports.http
    return (own, ports.http) if route.redirect else (own,)
