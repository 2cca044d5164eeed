"""Checks of an application's routes: where each leads, and what its protocol can keep."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from skerry.kit.quantities import parse_duration, parse_size
from skerry.spec.application import ApplicationSpec
from skerry.spec.checks_files import check_unique
from skerry.spec.ingress import Route
from skerry.spec.problems import Problem
from skerry.spec.shadow import Shadow, share_of

MAX_BODY_BYTES = 256 << 20
"""A request with `max_body` is held in the memory of the proxy."""
MAX_DRAIN_S = 3600.0
MAX_COPY_S = 300.0
MAX_COPY_BYTES = 16 << 20


def check_ingress(application: ApplicationSpec) -> Iterator[Problem]:
    """Yield what is wrong with the routes."""
    routes = application.ingress
    yield from _check_shadow_used(application)
    yield from check_unique("spec.ingress", "route", (route.name for route in routes))
    seen: dict[object, str] = {}
    shared = (c for c in application.components if c.image is None or c.container.network == "host")
    own = {port.port for component in shared for port in component.ports if port.port}
    for index, route in enumerate(routes):
        path = f"spec.ingress[{index}]"
        yield from _check_target(path, route, application)
        yield from _check_times(path, route)
        yield from _check_auth(path, route)
        yield from _check_tcp(path, route, own) if route.protocol == "tcp" else _check_http(path, route)
        yield from _check_shadow(path, route, application)
        for key in places_of(route):
            if key in seen:
                yield Problem(path, f"is at the same place as route {seen[key]}", "give it a path of its own")
            seen.setdefault(key, route.name)


def places_of(route: Route) -> Iterator[tuple[object, ...]]:
    """Yield what a route takes for itself within its application: a port, or a path of a name at each listener."""
    if route.protocol == "tcp":
        yield ("port", route.listen)
    else:
        yield ("path", route.tls, route.host, route.path.rstrip("/"))
        if route.redirect:
            yield ("path", "plain", route.host, route.path.rstrip("/"))


def _check_target(path: str, route: Route, application: ApplicationSpec) -> Iterator[Problem]:
    component = next((c for c in application.components if c.name == route.component), None)
    if component is None:
        known = ", ".join(c.name for c in application.components)
        yield Problem(
            f"{path}.component", f"no component named {route.component}", f"components here: {known}"
        )
        return
    ports = [port.name for port in component.ports]
    if route.port not in ports:
        hint = f"ports here: {', '.join(ports)}" if ports else "the component has no ports"
        yield Problem(f"{path}.port", f"no port named {route.port}", hint)


def _check_times(path: str, route: Route) -> Iterator[Problem]:
    if parse_duration(route.idle) <= 0:
        yield Problem(f"{path}.idle", "must be longer than 0")
    if parse_duration(route.drain) > MAX_DRAIN_S:
        yield Problem(
            f"{path}.drain", f"{route.drain} is longer than 1h", "an update would not end for so long"
        )
    if route.rate is not None and parse_duration(route.rate.per) < 0.05:
        yield Problem(f"{path}.rate.per", f"{route.rate.per} is shorter than 50ms", "such as 1s")


def _check_auth(path: str, route: Route) -> Iterator[Problem]:
    auth = route.auth
    if auth.token is not None and auth.mtls is not None:
        yield Problem(f"{path}.auth", "2 ways to prove who one is", "write one of token, mtls")
    if auth.mtls is not None:
        if not (auth.mtls.ids or auth.mtls.sites):
            yield Problem(f"{path}.auth.mtls", "nobody is let in", "write ids, sites or both")
        if route.tls == "plain":
            yield Problem(f"{path}.auth.mtls", "without TLS nobody shows a certificate", "write tls: site")
    if auth.token is not None and route.tls == "plain" and route.expose == "site":
        hint = "write tls: site, or expose: host"
        yield Problem(f"{path}.auth.token", "the token would cross the network in clear", hint)


def _check_shadow(path: str, route: Route, application: ApplicationSpec) -> Iterator[Problem]:
    shadow, where = route.shadow, f"{path}.shadow"
    if shadow is None:
        return
    if application.update != "shadow":
        yield Problem(where, f"nothing is copied with update: {application.update}", "write update: shadow")
    if route.protocol != "http":
        yield Problem(
            where, f"means nothing for protocol: {route.protocol}", "requests of http alone are copied"
        )
    if route.rate is not None:
        # What is copied has a way of its own through the proxy, and would have a rate of its own.
        yield Problem(where, "a route with a rate cannot be copied", "leave one of shadow, rate out")
    if share_of(shadow) <= 0:
        yield Problem(f"{where}.share", "nothing is copied", "such as 10%")
    if not 0 < parse_duration(shadow.timeout) <= MAX_COPY_S:
        yield Problem(f"{where}.timeout", f"expected more than 0 and at most 5m, got {shadow.timeout}")
    if not 0 < parse_size(shadow.max_body) <= MAX_COPY_BYTES:
        expected = f"expected more than 0 and at most 16MiB, got {shadow.max_body}"
        yield Problem(f"{where}.max_body", expected)
    for place, below in enumerate(shadow.paths):
        if not f"{below.rstrip('/')}/".startswith(f"{route.path.rstrip('/')}/"):
            yield Problem(
                f"{where}.paths[{place}]", f"{below} is not below {route.path}", "the route's own path"
            )
    yield from _check_comparing(where, shadow)


def _check_comparing(where: str, shadow: Shadow) -> Iterator[Problem]:
    stated = {
        "tolerance": shadow.tolerance != "0",
        "fields": bool(shadow.fields),
        "label": shadow.label is not None,
    }
    known = {"exact": (), "json": ("tolerance", "fields"), "top-1": ("label",)}[shadow.compare]
    for name, there in stated.items():
        if there and name not in known:
            hint = "write compare: top-1" if name == "label" else "write compare: json"
            yield Problem(f"{where}.{name}", f"means nothing with compare: {shadow.compare}", hint)


def _check_shadow_used(application: ApplicationSpec) -> Iterator[Problem]:
    """Yield that an application wants requests copied and no route says which."""
    if application.update == "shadow" and not any(route.shadow for route in application.ingress):
        hint = "write shadow: {share: 10%} at a route, or update: blue-green"
        yield Problem("spec.update", "no route says what is copied", hint)


def _check_tcp(path: str, route: Route, own: AbstractSet[int]) -> Iterator[Problem]:
    if route.listen in own:
        message = f"a component listens on port {route.listen} of the host itself"
        yield Problem(f"{path}.listen", message, "let it have another, such as port: 0")
    hint = "leave it out, or write protocol: http"
    if route.listen is None:
        yield Problem(f"{path}.listen", "is missing", "the port that clients connect to, such as 5020")
    if route.auth.token is not None:
        yield Problem(f"{path}.auth.token", "only requests of HTTP carry a token", "write mtls")
    for name, there in (
        ("path", route.path != "/"), ("timeout", route.timeout), ("max_body", route.max_body), ("rate", route.rate),
        ("redirect", route.redirect),
    ):  # fmt: skip
        if there:
            yield Problem(f"{path}.{name}", "means nothing for protocol: tcp", hint)


def _check_http(path: str, route: Route) -> Iterator[Problem]:
    if route.redirect and route.tls == "plain":
        yield Problem(f"{path}.redirect", "there is nothing with TLS to lead to", "write tls: site")
    if route.listen is not None:
        hint = "leave it out: names and paths share the host's ports of the ingress"
        yield Problem(f"{path}.listen", f"means nothing for protocol: {route.protocol}", hint)
    if route.max_body is not None:
        if route.protocol == "grpc":
            yield Problem(f"{path}.max_body", "a stream is not held", "leave it out")
        size = parse_size(route.max_body)
        if not 0 < size <= MAX_BODY_BYTES:
            yield Problem(
                f"{path}.max_body", f"expected more than 0 and at most 256MiB, got {route.max_body}"
            )
    if "//" in route.path or any(part in (".", "..") for part in route.path.split("/")):
        yield Problem(f"{path}.path", f"not a plain path: {route.path}", "write it without //, . and ..")
