"""What can be listed: for each noun how it is fetched, which columns it has, and what may narrow it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from skerry.cli.config import COLUMNS as CONFIGURATION_COLUMNS
from skerry.cli.output import Column
from skerry.cli.text import age, local_time, now, plural, until
from skerry.client.client import Client
from skerry.kit.digests import short
from skerry.kit.errors import Missing
from skerry.kit.quantities import format_size
from skerry.spec.api import (
    AppView,
    EventView,
    HostView,
    ModelView,
    ReleaseView,
    RolloutView,
    SiteView,
    TokenView,
)
from skerry.spec.api_configuration import ConfigurationView
from skerry.spec.api_ingress import RouteStanding
from skerry.spec.api_names import NameStanding
from skerry.spec.api_policy import PolicyView
from skerry.spec.api_relay import RelayStanding
from skerry.spec.api_sink import SinkView
from skerry.spec.api_topics import TopicFlow

AnyView = Any
"""A view of `skerry.spec.api`; which one, the resource knows."""


class Query(msgspec.Struct, frozen=True):
    """What to list; an empty field narrows nothing down."""

    name: str = ""
    selector: str = ""
    site: str = ""
    host: str = ""
    application: str = ""
    limit: int = 100


class Resource(msgspec.Struct, frozen=True):
    """One noun. `options` are the fields of a query that it understands, besides `name`."""

    singular: str
    plural: str
    fetch: Callable[[Client, Query], Sequence[AnyView]]
    columns: Callable[[datetime], Sequence[Column[AnyView]]]
    name: Callable[[AnyView], str]
    options: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()

    def listing(self, client: Client, query: Query) -> Sequence[AnyView]:
        """Return the views a query asks for.

        Raises:
            click.UsageError: it narrows down by what this noun does not have.
            Missing: it names one that is not there.
        """
        for field in ("selector", "site", "host", "application"):
            if getattr(query, field) and field not in self.options:
                raise click.UsageError(f"{self.plural} cannot be narrowed down by --{field}")
        found = self.fetch(client, query)
        if query.name and not found:
            hint = f"list them: skerry get {self.plural}"
            raise Missing(f"{self.singular}.missing", f"no {self.singular} named {query.name}", hint=hint)
        return found


def _sites(client: Client, query: Query) -> Sequence[SiteView]:
    return [client.site(query.name)] if query.name else client.sites(query.selector)


def _hosts(client: Client, query: Query) -> Sequence[HostView]:
    if query.name:
        return [client.host(query.name)]
    hosts = client.hosts(query.site)
    if query.selector:
        chosen = {site.name for site in client.sites(query.selector)}
        hosts = [host for host in hosts if host.site in chosen]
    return hosts


def _releases(client: Client, query: Query) -> Sequence[ReleaseView]:
    return [client.release(query.name)] if query.name else client.releases(query.application)


def _rollouts(client: Client, query: Query) -> Sequence[RolloutView]:
    return [client.rollout(query.name)] if query.name else client.rollouts()


def _named(views: Sequence[AnyView], query: Query) -> Sequence[AnyView]:
    return [view for view in views if query.name in ("", view.name)]


def _counts(running: dict[str, int]) -> str:
    return ", ".join(f"{name} on {plural(count, 'host')}" for name, count in sorted(running.items()) if count)


def _site_columns(at: datetime) -> list[Column[SiteView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("HEALTH", lambda v: v.health.word if v.health else ""),
        Column("STATE", lambda v: v.presence),
        Column("HOSTS", lambda v: f"{v.hosts_online}/{v.hosts} online"),
        Column("LAST SEEN", lambda v: age(v.last_seen_at, at), 1),
        Column("RUNS", lambda v: ", ".join(sorted(v.assignments.values())), 2),
        Column("LABELS", lambda v: ",".join(f"{key}={value}" for key, value in sorted(v.labels.items())), 3),
    ]


def _host_columns(at: datetime) -> list[Column[HostView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("SITE", lambda v: v.site, 1),
        Column("STATE", lambda v: "quarantined" if v.quarantined else v.presence),
        Column("LAST SEEN", lambda v: age(v.last_seen_at, at), 1),
        Column("RUNS", _runs),
        Column("DESIRED", lambda v: "in step" if v.generation_held >= v.generation_wanted else "queued", 2),
        Column("ARCH", lambda v: str(v.facts["arch"].value) if "arch" in v.facts else "", 3),
    ]


def _runs(host: HostView) -> str:
    parts = (
        f"{view.release or name} ({view.phase}{f' {view.candidate}' if view.candidate else ''})"
        if view.phase != "running"
        else view.release
        for name, view in sorted(host.applications.items())
    )
    return ", ".join(parts)


def _app_columns(_: datetime) -> list[Column[AppView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("RELEASES", lambda v: ", ".join(v.releases), 1),
        Column("RUNNING", lambda v: _counts(v.running)),
    ]


def _model_columns(_: datetime) -> list[Column[ModelView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("VERSION", lambda v: v.version),
        Column("VARIANTS", lambda v: ", ".join(v.variants), 2),
        Column("RELEASES", lambda v: ", ".join(v.releases), 1),
        Column("RUNNING", lambda v: _counts(v.running)),
    ]


def _release_columns(at: datetime) -> list[Column[ReleaseView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("MODELS", lambda v: ", ".join(f"{name} {v.models[name]}" for name in sorted(v.models)), 1),
        Column("SIZE", lambda v: format_size(v.size_bytes), 1),
        Column("PUSHED", lambda v: age(v.created_at, at)),
        Column("SIGNED BY", lambda v: f"{v.publisher} (revoked)" if v.revoked else v.publisher),
        Column("BY", lambda v: v.created_by, 2),
        Column("DIGEST", lambda v: short(v.digest), 3),
    ]


def _rollout_columns(at: datetime) -> list[Column[RolloutView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("RELEASE", lambda v: v.release),
        Column("STATE", lambda v: v.state),
        Column("SITES", _progress),
        Column("STARTED", lambda v: age(v.created_at, at), 2),
        Column("WHY", lambda v: v.why, 1),
    ]


def _progress(rollout: RolloutView) -> str:
    done = sum(progress.state == "succeeded" for progress in rollout.sites.values())
    failed = sum(progress.state == "failed" for progress in rollout.sites.values())
    return f"{done}/{len(rollout.sites)}" + (f", {failed} failed" if failed else "")


def _configurations(client: Client, query: Query) -> Sequence[ConfigurationView]:
    return [client.configuration(query.name)] if query.name else client.configurations()


def _policies(client: Client, query: Query) -> Sequence[PolicyView]:
    return [client.policy(query.name)] if query.name else client.policies()


def _policy_columns(at: datetime) -> list[Column[PolicyView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("APPS", lambda v: ",".join(v.applications), 1),
        Column("ENFORCE", lambda v: v.enforce),
        Column("REQUIRES", lambda v: "; ".join(v.require)),
        Column("CHANGED", lambda v: age(v.changed_at, at), 2),
        Column("BY", lambda v: v.changed_by, 3),
    ]


def _route_columns(at: datetime) -> list[Column[RouteStanding]]:
    return [
        Column("NAME", lambda v: f"{v.route.application}/{v.route.route}"),
        Column("SITE", lambda v: v.site, 1),
        Column("HOST", lambda v: v.host),
        Column("AT", _place),
        Column("STATE", lambda v: v.route.state + (f": {v.route.why}" if v.route.why else "")),
        Column("RELEASE", lambda v: v.route.release, 1),
        Column("CLIENTS", lambda v: v.route.auth, 2),
        Column("REQUESTS", lambda v: str(v.figures.requests), 1),
        Column("ERRORS", lambda v: str(v.figures.errors), 1),
        Column("P50", lambda v: _milliseconds(v.figures.p50_ms), 2),
        Column("P99", lambda v: _milliseconds(v.figures.p99_ms), 2),
        Column("AS OF", lambda v: age(v.as_of, at), 3),
    ]


def _name_columns(at: datetime) -> list[Column[NameStanding]]:
    return [
        Column("NAME", lambda v: v.name.name),
        Column("SITE", lambda v: v.site, 1),
        Column("APP", lambda v: ",".join(v.name.applications), 1),
        Column("LEADS TO", lambda v: ", ".join(f"{one.address} ({one.host})" for one in v.name.places)),
        Column("STATE", lambda v: v.name.places[0].state),
        Column("DNS", lambda v: ",".join(v.answered_by), 1),
        Column("AS OF", lambda v: age(v.as_of, at), 2),
    ]


def _place(standing: RouteStanding) -> str:
    view = standing.route
    name = min(view.names, key=len, default="")
    if view.protocol == "tcp":
        return f"{name}:{view.port}"
    scheme, usual = ("https", 443) if view.tls else ("http", 80)
    return f"{scheme}://{name}{'' if view.port == usual else f':{view.port}'}{view.path}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"


def _topics(client: Client, query: Query) -> Sequence[TopicFlow]:
    sites = [query.site] if query.site else [view.name for view in client.sites()]
    flows = [flow for site in sites for flow in client.topics(site).flows]
    return [flow for flow in flows if query.name in ("", flow.topic)]


def _topic_columns(_at: datetime) -> list[Column[TopicFlow]]:
    return [
        Column("SITE", lambda v: v.site),
        Column("APP", lambda v: v.application),
        Column("DOES", lambda v: v.does),
        Column("TOPIC", lambda v: v.topic),
        Column("JOINED", lambda v: ",".join(v.joined)),
        Column("TROUBLE", lambda v: v.trouble),
    ]


def _sink_columns(at: datetime) -> list[Column[SinkView]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("TOPICS", lambda v: ",".join(v.topics), 2),
        Column("PLACE", lambda v: v.place, 1),
        Column("POSITION", lambda v: str(v.position), 2),
        Column("WAITING", lambda v: str(v.waiting)),
        Column("DELIVERED", lambda v: age(v.delivered_at, at)),
        Column("LOST", lambda v: str(v.lost), 1),
        Column("TROUBLE", lambda v: v.trouble),
        Column("CHANGED", lambda v: age(v.changed_at, at), 3),
    ]


def _relays(client: Client, query: Query) -> Sequence[RelayStanding]:
    return [client.relay(query.name)] if query.name else client.relays()


def _relay_columns(at: datetime) -> list[Column[RelayStanding]]:
    return [
        Column("NAME", lambda v: v.name),
        Column("STATE", lambda v: v.presence),
        Column("LAST SEEN", lambda v: age(v.last_seen_at, at), 1),
        Column("SITES", lambda v: str(len(v.sites))),
        Column("QUEUE", lambda v: str(v.view.queue.reports) if v.view else "", 1),
        Column("CACHE", lambda v: format_size(v.view.cache.used_bytes) if v.view else "", 2),
        Column("BELOW", lambda v: ", ".join(v.below), 2),
        Column("ADDRESS", lambda v: str(v.document.get("spec", {}).get("addresses", [""])[0]), 3),
    ]


def _event_columns(_: datetime) -> list[Column[EventView]]:
    return [
        Column("AT", lambda v: local_time(v.event.at)),
        Column("HOST", lambda v: v.host),
        Column("SITE", lambda v: v.site, 2),
        Column(
            "APP", lambda v: "/".join(part for part in (v.event.application, v.event.component) if part), 1
        ),
        Column("EVENT", lambda v: v.event.kind),
        Column("MESSAGE", lambda v: v.event.message),
    ]


def _token_columns(at: datetime) -> list[Column[TokenView]]:
    return [
        Column("ID", lambda v: v.id),
        Column("NAME", lambda v: v.name),
        Column("ROLE", lambda v: v.role),
        Column("SITES", lambda v: v.sites or "*"),
        Column("LAST USED", lambda v: age(v.last_used_at, at), 1),
        Column("EXPIRES", lambda v: until(v.expires_at, at), 1),
        Column("CREATED", lambda v: age(v.created_at, at), 2),
    ]


RESOURCES: tuple[Resource, ...] = (
    Resource("site", "sites", _sites, _site_columns, lambda v: f"site/{v.name}", frozenset({"selector"})),
    Resource(
        "host", "hosts", _hosts, _host_columns, lambda v: f"host/{v.name}", frozenset({"selector", "site"})
    ),
    Resource(
        "app",
        "apps",
        lambda client, query: _named(client.applications(), query),
        _app_columns,
        lambda v: f"app/{v.name}",
        aliases=("application", "applications"),
    ),
    Resource(
        "model",
        "models",
        lambda client, query: _named(client.models(), query),
        _model_columns,
        lambda v: f"model/{v.name}@{v.version}",
    ),
    Resource(
        "release",
        "releases",
        _releases,
        _release_columns,
        lambda v: f"release/{v.name}",
        frozenset({"application"}),
    ),
    Resource("rollout", "rollouts", _rollouts, _rollout_columns, lambda v: f"rollout/{v.name}"),
    Resource("policy", "policies", _policies, _policy_columns, lambda v: f"policy/{v.name}"),
    Resource(
        "sink",
        "sinks",
        lambda client, query: client.sinks(query.name),
        _sink_columns,
        lambda v: f"sink/{v.name}",
    ),
    Resource(
        "configuration",
        "configurations",
        _configurations,
        lambda _: CONFIGURATION_COLUMNS,
        lambda v: f"configuration/{v.name}",
    ),
    Resource(
        "route",
        "routes",
        lambda client, query: [
            one
            for one in client.routes(site=query.site, application=query.application)
            if query.name in ("", one.route.route)
        ],
        _route_columns,
        lambda v: f"route/{v.host}/{v.route.application}/{v.route.route}",
        frozenset({"site", "application"}),
    ),
    Resource(
        "name",
        "names",
        lambda client, query: [
            one for one in client.names(site=query.site) if query.name in ("", one.name.name)
        ],
        _name_columns,
        lambda v: f"name/{v.site}/{v.name.name}",
        frozenset({"site"}),
    ),
    Resource("relay", "relays", _relays, _relay_columns, lambda v: f"relay/{v.name}"),
    Resource(
        "topic",
        "topics",
        _topics,
        _topic_columns,
        lambda v: f"topic/{v.application}/{v.topic}",
        frozenset({"site"}),
    ),
    Resource(
        "event",
        "events",
        lambda client, query: client.events(site=query.site, host=query.host, limit=query.limit),
        _event_columns,
        lambda v: f"event/{v.id}",
        frozenset({"site", "host"}),
    ),
    Resource(
        "token",
        "tokens",
        lambda client, query: _named(client.tokens(), query),
        _token_columns,
        lambda v: v.id,
    ),
)


def resource_of(word: str) -> Resource | None:
    """Return the resource a word means, in singular, plural or by another name of it."""
    return next((r for r in RESOURCES if word in (r.singular, r.plural, *r.aliases)), None)


def columns_now(resource: Resource) -> Sequence[Column[AnyView]]:
    """Return the columns of a resource, with ages told from now."""
    return resource.columns(now())


class ResourceType(click.ParamType[Resource]):
    """A noun as an argument."""

    name = "what"

    def __init__(self, *singulars: str) -> None:
        self._known = [r for r in RESOURCES if not singulars or r.singular in singulars]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Resource:
        """Return the resource, or fail with those there are."""
        if isinstance(value, Resource):
            return value
        found = resource_of(str(value).lower())
        if found is None or found not in self._known:
            known = ", ".join(r.plural for r in self._known)
            self.fail(f"{value!r} is none of {known}", param, ctx)
        return found

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Complete to the plurals."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(r.plural) for r in self._known if r.plural.startswith(incomplete)]
