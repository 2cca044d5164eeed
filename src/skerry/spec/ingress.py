"""Routes: what of an application others at its site may reach, under which name, how protected, and how it stands.

A route's names are `HOST.SITE.DOMAIN` and `HOST.site.internal`; the second is the same at every site. What no route
names is reached from its own host alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Duration, Name, Part, Size
from skerry.spec.shadow import Shadow

SHORT_DOMAIN = "site.internal"
"""The domain of the names that are the same at every site."""

RouteHost = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        max_length=253,
        description="a label such as reader, or a whole name such as reader.zurich.skerry.internal",
    ),
]
PathPrefix = Annotated[
    str,
    Meta(
        pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@/-]*$",
        max_length=1024,
        description="a path that begins with /, without ? and %",
    ),
]
SpiffeId = Annotated[
    str,
    Meta(
        pattern=r"^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+$",
        max_length=1024,
        description="a SPIFFE id such as spiffe://skerry.internal/site/zurich/app/press",
    ),
]
Protocol = Literal["http", "grpc", "tcp"]
RoutePort = Annotated[int, Meta(ge=1, le=65535)]


class MutualTls(Part, frozen=True, kw_only=True):
    """Clients that show a certificate of the site's, of one of these `ids` or of any application of these `sites`."""

    ids: Annotated[tuple[SpiffeId, ...], Meta(max_length=64)] = ()
    sites: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()


class RouteAuth(Part, frozen=True, kw_only=True):
    """Who may use a route; neither is everybody who reaches the host.

    `token` names a secret: a client sends its value as `Authorization: Bearer VALUE`.
    """

    token: Name | None = None
    mtls: MutualTls | None = None


class RouteRate(Part, frozen=True, kw_only=True):
    """At most `requests` in each `per`, all clients of a host together; what is beyond is answered with 429."""

    requests: Annotated[int, Meta(ge=1, le=1_000_000)]
    per: Duration = "1s"


class Route(Part, frozen=True, kw_only=True):
    """One way in: `host` and `path` lead to a `port` of a `component`.

    `host` is the application's name when left out. Of several paths that fit the longest counts. `tcp` has no names
    and no paths: it has a port of its own, `listen`, and bytes pass through. `timeout` is for one answer, from the
    end of the request to the end of the answer (not for WebSockets; `0s` is none; 30 s for `http`, none for `grpc`);
    `idle` ends what says nothing for so long. With `max_body` a request is held until all of it is there, and
    refused with 413 beyond; WebSockets are not held. `drain` is how long the release before the one that takes over
    goes on for the requests it has. `expose: host` is for programs of the same host alone. With `redirect` a request
    without TLS is answered with the address of the same with TLS (308). `shadow` is for `update: shadow`: which
    requests are copied to a release on trial.
    """

    name: Name
    component: Name
    port: Name
    host: RouteHost | None = None
    path: PathPrefix = "/"
    protocol: Protocol = "http"
    listen: RoutePort | None = None
    tls: Literal["site", "plain"] = "site"
    auth: RouteAuth = RouteAuth()
    timeout: Duration | None = None
    idle: Duration = "5m"
    max_body: Size | None = None
    rate: RouteRate | None = None
    drain: Duration = "5s"
    expose: Literal["site", "host"] = "site"
    redirect: bool = False
    shadow: Shadow | None = None


Routes = Annotated[tuple[Route, ...], Meta(max_length=64)]

RouteState = Literal["serving", "waiting", "refused"]


class RouteView(Part, frozen=True, kw_only=True):
    """A route as it stands on a host.

    `serving` leads to `component` of `release` at `backend`; `waiting` says in `why` what for, and is answered with
    503; `refused` is not there at all. `names` and `port` are where clients find it.
    """

    application: Name
    route: Name
    component: Name
    state: RouteState
    why: Annotated[str, Meta(max_length=1024)] = ""
    release: str = ""
    backend: Annotated[str, Meta(max_length=256)] = ""
    names: tuple[str, ...] = ()
    path: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    tls: bool = False
    protocol: Protocol = "http"
    auth: Literal["none", "token", "mtls"] = "none"
    expose: Literal["site", "host"] = "site"


def auth_kind(route: Route) -> Literal["none", "token", "mtls"]:
    """Return how a route is protected, as one word."""
    if route.auth.mtls is not None:
        return "mtls"
    return "none" if route.auth.token is None else "token"


def route_names(route: Route, application: str, site: str, domain: str) -> tuple[str, ...]:
    """Return the names of a route at a site; a `host` with a dot is the whole name, and the only one."""
    host = route.host or application
    return (host,) if "." in host else (f"{host}.{site}.{domain}", f"{host}.{SHORT_DOMAIN}")
