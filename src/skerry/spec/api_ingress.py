"""What the hub says of routes: how they stand at hosts, what was measured of them, and what answers a request."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from skerry.spec.ingress import RouteView
from skerry.spec.report import Instant


class RouteFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What clients saw of a route since `since`; times in milliseconds, None where nothing was measured."""

    since: Instant
    requests: int = 0
    errors: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class RouteStanding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route at a host, as that reported `as_of`."""

    site: str
    host: str
    as_of: Instant | None = None
    route: RouteView
    figures: RouteFigures


class RouteHop(msgspec.Struct, frozen=True):
    """One step of a request: `what` decides there, and what it says."""

    what: str
    answer: Annotated[str, Meta(max_length=4096)]


class RouteTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A request's way, and who answers it in the end."""

    hops: tuple[RouteHop, ...]
    outcome: str


class RouteExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """A request's way at one site, from what its hosts reported: the oldest report is `as_of`."""

    url: str
    site: str
    as_of: Instant | None = None
    trace: RouteTrace
