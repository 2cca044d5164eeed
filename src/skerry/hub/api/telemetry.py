"""What hosts measured and what their models answered: questions, and who takes most."""

from __future__ import annotations

from litestar import MediaType, Response, get
from litestar.params import FromPath, FromQuery

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.api.scope import Seen
from skerry.hub.services import Hub
from skerry.hub.telemetry_exposition import CONTENT_TYPE, write_exposition
from skerry.hub.telemetry_quality import QualityQueries
from skerry.hub.telemetry_query import labels_of
from skerry.kit.errors import Missing
from skerry.matching.selector import parse_selector
from skerry.spec.api_quality import DriftAnswer
from skerry.spec.api_telemetry import HostTelemetryView, MetricsAnswer, MetricView, TopAnswer

HOUR_S, DAY_S = 3600.0, 86_400.0


@get("/metrics/query", sync_to_thread=True)
def query_metrics(
    hub: TheHub,
    seen: TheSeen,
    q: FromQuery[str],
    by: FromQuery[str] = "",
    since_s: FromQuery[float] = HOUR_S,
    selector: FromQuery[str] = "*",
) -> MetricsAnswer:
    """Answer a question such as latency_p95{app="reader"}, in groups by labels with commas between."""
    groups = [name for part in by.split(",") if (name := part.strip())]
    return _queries(hub, seen, selector).query(q, groups, since_s)


@get("/metrics/names", sync_to_thread=True)
def list_metrics(hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*") -> list[MetricView]:
    """List what there is to ask about."""
    return _queries(hub, seen, selector).names()


@get("/metrics/hosts", sync_to_thread=True)
def list_telemetry_hosts(
    hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*"
) -> list[HostTelemetryView]:
    """List how far hosts have told what they measured, and what of it was given up or lost."""
    return _queries(hub, seen, selector).hosts()


@get("/top/{what:str}", sync_to_thread=True)
def show_top(
    what: FromPath[str],
    hub: TheHub,
    seen: TheSeen,
    since_s: FromQuery[float] = HOUR_S,
    selector: FromQuery[str] = "*",
) -> TopAnswer:
    """Show which sites, or applications, take most, or which models predict most."""
    queries = _queries(hub, seen, selector)
    if what == "sites":
        return queries.top_sites(since_s)
    if what == "apps":
        return queries.top_apps(since_s)
    if what == "models":
        return queries.top_models(since_s)
    raise Missing("top.unknown", f"there is no top of {what[:64]}", hint="one of apps, models, sites")


@get("/drift/{application:str}", sync_to_thread=True)
def explain_drift(
    application: FromPath[str],
    hub: TheHub,
    seen: TheSeen,
    since_s: FromQuery[float] = DAY_S,
    selector: FromQuery[str] = "*",
) -> DriftAnswer:
    """Show how far the features of an application's models are from their references, with all counts."""
    return _queries(hub, seen, selector).drift(application, since_s)


@get("/metrics/exposition", media_type=MediaType.TEXT, sync_to_thread=True)
def expose_metrics(hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*") -> Response[str]:
    """Tell what the hub and the fleet measured in the last quarter of an hour, in Prometheus' text format."""
    text = write_exposition(_queries(hub, seen, selector), kept_bytes=hub.store.telemetry_bytes())
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


def _queries(hub: Hub, seen: Seen, selector: str) -> QualityQueries:
    chosen = parse_selector(selector)
    sites = [site for site in seen.sites() if chosen.matches(site.name, labels_of(site))]
    return QualityQueries(hub.store, hub.clock, sites)


HANDLERS = [query_metrics, list_metrics, list_telemetry_hosts, expose_metrics, show_top, explain_drift]
