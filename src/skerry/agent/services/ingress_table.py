"""Which routes of a host lead where: pure, from what is assigned, what runs and what is ready.

Rules:
- A route leads to the good release. Where nothing of that is ready it leads to the one on trial, if that is: an update
  that ends the old release first would leave clients alone for the whole trial otherwise.
- How a route is protected is what the release says that it leads to. One that asks for a token and has no value of it,
  or for TLS and has no certificate, is not in force: never open in its place.
- A route that stands in another's place is not in force, and says whose.
- A release on trial that wants `update: shadow` gets copies of a route's requests while it is ready, the good release
  answers, and both have the route at the same path. How answers are compared is what the release on trial says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from skerry.kit.digests import short
from skerry.matching.ingress import Claim, HostPorts, find_conflicts, fixed_ports
from skerry.ports.proxy import SHADOWED, Backend, Certificate, Entry, ProxyPorts, ProxyTable, Shadowing
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.spec.ingress import Route, RouteView, auth_kind, route_names

NO_CERTIFICATE = "waiting for the site's certificate"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a table is made from.

    `fact_of` tells of a release by digest, `taken` which release's models a family's instances run with, `ready`
    whether an instance may serve, `token` the value of a secret here, `lacking` why there is no certificate.
    """

    host: str
    site: str
    domain: str
    records: Mapping[str, ApplicationRecord]
    instances: Mapping[str, InstanceView]
    fact_of: Callable[[str], ReleaseFact | None]
    taken: Mapping[str, str]
    ready: Callable[[str], bool]
    token: Callable[[str], bytes | None]
    certificate: Certificate | None
    lacking: str = ""
    ports: HostPorts
    in_memory: bool = True


class Laid(msgspec.Struct, frozen=True):
    """The table to be served, how each route stands, and whose each backend is.

    An owner is application, release, component and route.
    """

    table: ProxyTable
    views: tuple[RouteView, ...] = ()
    owners: Mapping[str, tuple[str, str, str, str]] = {}


class _Found(msgspec.Struct, frozen=True):
    """A route, the release it leads to, and the port of the instance that answers, 0 when none does."""

    application: str
    fact: ReleaseFact
    route: Route
    port: int = 0
    why: str = ""
    shadow: Shadowing | None = None


def lay_table(scene: Scene) -> Laid:
    """Return the table of a host."""
    found = [one for name in sorted(scene.records) for one in _routes(scene, scene.records[name])]
    conflicts = _conflicts(scene, found)
    entries: list[Entry] = []
    views: list[RouteView] = []
    for one in found:
        refusal = conflicts.get((one.application, one.route.name), "")
        entry, view = _settle(scene, one, refusal)
        views.append(view)
        if entry is not None:
            entries.append(entry)
    backends, owners = _backends(scene)
    known = {backend.id for backend in backends}
    table = ProxyTable(
        ports=ProxyPorts(scene.ports.https, scene.ports.http),
        domain=scene.domain,
        entries=tuple(_with_known(entry, known) for entry in entries),
        backends=tuple(backends),
        certificate=scene.certificate,
    )
    return Laid(table, tuple(views), owners)


def _with_known(entry: Entry, known: set[str]) -> Entry:
    """Return an entry without what is no backend."""
    if entry.backend not in known:
        return msgspec.structs.replace(entry, backend="", shadow=None)
    if entry.shadow is not None and entry.shadow.backend not in known:
        return msgspec.structs.replace(entry, shadow=None)
    return entry


def names_needed(scene: Scene) -> tuple[str, ...]:
    """Return the names that the certificate of this host's routes has to be for."""
    found = [one for record in scene.records.values() for one in _routes(scene, record)]
    refused = _conflicts(scene, found)
    names = {
        name
        for one in found
        # A name that the site's certificate may not have would keep all others from theirs.
        if one.route.tls == "site" and (one.application, one.route.name) not in refused
        for name in route_names(one.route, one.application, scene.site, scene.domain)
    }
    return tuple(sorted(names))


def _routes(scene: Scene, record: ApplicationRecord) -> Iterator[_Found]:
    """Yield the routes of an application, each of the first release that is ready for it."""
    facts = [
        fact for digest in (record.good, record.candidate) if (fact := _serving(scene, digest)) is not None
    ]
    names = {route.name: None for fact in facts for route in fact.ingress}
    for name in names:
        having = [_Found(record.application, f, r) for f in facts for r in f.ingress if r.name == name]
        answering = [found for one in having if (found := _answering(scene, one)).port]
        yield _with_shadow(answering, record) if answering else _answering(scene, having[0])


def _with_shadow(answering: Sequence[_Found], record: ApplicationRecord) -> _Found:
    """Return the first of a route's releases that answer, and that the second is given copies, if it is to have any."""
    live, *rest = answering
    other = next(iter(rest), None)
    if other is None or other.fact.digest != record.candidate or other.fact.update != "shadow":
        return live
    rule = other.route.shadow
    if other.fact.kin == live.fact.kin:
        return live  # one process answers for both
    if rule is None or live.route.path != other.route.path or live.route.protocol != "http":
        return live
    if live.route.rate is not None:
        return live  # a way of its own would have a rate of its own
    why = f"{rule.share} of requests are copied to {other.fact.name}"
    return msgspec.structs.replace(live, why=why, shadow=Shadowing(_backend_id(other), rule))


def _serving(scene: Scene, digest: str) -> ReleaseFact | None:
    """Return the release that instances of this one serve: a family's serve the one whose models they took."""
    fact = scene.fact_of(digest) if digest else None
    if fact is None or not fact.hot:
        return fact
    return scene.fact_of(scene.taken.get(fact.kin, digest)) or fact


def _answering(scene: Scene, one: _Found) -> _Found:
    key = one.fact.instance_id(one.application, one.route.component)
    view = scene.instances.get(key)
    port = view.labels.get(f"port.{one.route.port}", "") if view else ""
    if view is None or view.state != "running" or not port.isdigit():
        return msgspec.structs.replace(one, why=f"{one.route.component} of {one.fact.name} does not run")
    if not scene.ready(key):
        return msgspec.structs.replace(one, why=f"{one.route.component} of {one.fact.name} is not ready")
    return msgspec.structs.replace(one, port=int(port))


def _conflicts(scene: Scene, found: Sequence[_Found]) -> dict[tuple[str, str], str]:
    claims: dict[str, Claim] = {}
    for one in found:
        before = claims.get(one.application, Claim(one.application))
        claims[one.application] = Claim(
            one.application, (*before.routes, one.route), before.fixed | fixed_ports(one.fact.components)
        )
    told = find_conflicts(
        list(claims.values()), {scene.host: scene.ports}, site=scene.site, domain=scene.domain
    )
    return {(conflict.application, conflict.route): conflict.why for conflict in told}


def _settle(scene: Scene, one: _Found, refusal: str) -> tuple[Entry | None, RouteView]:
    """Return a route as it is put into force, None when it is not; and how it stands."""
    route = one.route
    names = route_names(route, one.application, scene.site, scene.domain)
    token = b""
    why = refusal
    if not why and route.auth.token is not None:
        value = scene.token(route.auth.token)
        token = (value or b"").rstrip(b"\r\n")
        if not value:
            why = f"waiting for a value of secret {route.auth.token}"
        elif not token or not all(33 <= byte <= 126 for byte in token):
            why = f"secret {route.auth.token} cannot be sent in a header: letters, digits and signs only"
        elif not scene.in_memory:
            why = "this host has no file system in memory for the token"
    if not why and route.tls == "site" and scene.certificate is None:
        why = f"{NO_CERTIFICATE}: {scene.lacking}" if scene.lacking else NO_CERTIFICATE
    serves = not why and one.port
    tls = scene.ports.https if route.tls == "site" else scene.ports.http
    view = RouteView(
        application=one.application,
        route=route.name,
        component=route.component,
        state="serving" if serves else "refused" if refusal else "waiting",
        why=why or one.why,
        release=one.fact.name if serves else "",
        backend=f"127.0.0.1:{one.port}" if serves else "",
        names=names,
        path="" if route.protocol == "tcp" else route.path,
        port=(route.listen or 0) if route.protocol == "tcp" else tls,
        tls=route.tls == "site",
        protocol=route.protocol,
        auth=auth_kind(route),
        expose=route.expose,
    )
    if why:
        return None, view
    return Entry(one.application, route, names, _backend_id(one) if one.port else "", token, one.shadow), view


def _backends(scene: Scene) -> tuple[list[Backend], dict[str, tuple[str, str, str, str]]]:
    """Return all that runs and has a route, also what no route leads to now: what it has, it may finish."""
    backends: dict[str, Backend] = {}
    owners: dict[str, tuple[str, str, str, str]] = {}
    for view in scene.instances.values():
        application = view.labels.get("application", "")
        fact = _serving(scene, view.labels.get("release", ""))
        if fact is None or view.state not in ("running", "stopping"):
            continue
        for route in fact.ingress:
            port = view.labels.get(f"port.{route.port}", "")
            if view.labels.get("component") == route.component and port.isdigit():
                one = _Found(application, fact, route, int(port))
                key = _backend_id(one)
                backends[key] = Backend(key, one.port, http2=route.protocol == "grpc")
                # Copied requests are the live release's as well: the proxy counts them apart.
                owners |= dict.fromkeys(
                    (key, f"{key}{SHADOWED}"), (application, fact.name, route.component, route.name)
                )
    return list(backends.values()), owners


def _backend_id(one: _Found) -> str:
    return f"{one.application}/{one.route.name}/{short(one.fact.digest)}"
