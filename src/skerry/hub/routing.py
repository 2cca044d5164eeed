"""Routes as the hub knows them: whether those of a release can be where it shall go, and how those of hosts stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.hub.other_applications import releases_of_others
from skerry.hub.secret_keeping import labels_of
from skerry.hub.services import Hub
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected
from skerry.matching.ingress import Claim, HostPorts, RouteConflict, claim_of, find_conflicts, host_ports
from skerry.matching.requirements import match_requirements
from skerry.matching.selector import Selector, parse_selector
from skerry.ports.hub_store import HostRecord, ReleaseRecord, SiteRecord
from skerry.ports.metric_windows import HostWindow
from skerry.rollout.quantiles import Tails
from skerry.spec.api_ingress import RouteFigures, RouteStanding
from skerry.spec.ingress import RouteView
from skerry.spec.metrics import Histogram, Rate, merge_histograms, merge_rates
from skerry.spec.problems import Problem
from skerry.spec.release import Release
from skerry.spec.rollout import RolloutSpec
from skerry.spec.site import Site

MAX_TOLD = 20
WINDOW = timedelta(hours=1)
ERRORS, LATENCY, BYTES = "ingress_errors", "ingress_latency_ms", "ingress_bytes"


def check_routes(
    hub: Hub,
    release: ReleaseRecord,
    selector: str,
    new_sites: Sequence[Site],
    *,
    beside: Sequence[RolloutSpec] = (),
) -> Iterator[Problem]:
    """Yield why routes of a release cannot be, and at which of the sites that a selector names.

    `new_sites` and the rollouts `beside` come at the same moment.
    """
    made = {
        s.metadata.name: SiteRecord(name=s.metadata.name, document=encode_canonical(s)) for s in new_sites
    }
    document = msgspec.json.decode(release.document, type=Release)
    for why, sites in _conflicts(hub, document, selector, made, beside).items():
        more = f" and {len(sites) - MAX_TOLD} more" if len(sites) > MAX_TOLD else ""
        yield Problem(
            "spec.release", f"{why}: at {', '.join(sites[:MAX_TOLD])}{more}", "skerry get routes lists them"
        )


def route_conflicts(hub: Hub, release: Release, selector: str) -> dict[str, tuple[str, ...]]:
    """Return why routes of a release cannot be, and at which of the sites of a selector."""
    return {why: tuple(sites) for why, sites in _conflicts(hub, release, selector, {}, ()).items()}


def domain_of(hub: Hub) -> str:
    """Return what names of sites end with."""
    return hub.pki.domain


def _conflicts(
    hub: Hub,
    release: Release,
    selector: str,
    made: Mapping[str, SiteRecord],
    beside: Sequence[RolloutSpec],
) -> dict[str, list[str]]:
    application = release.application.metadata.name
    own = claim_of(application, release.application.spec)
    if not (own.routes or own.fixed):
        return {}
    chosen = _chosen(selector)
    if chosen is None:
        return {}
    sites = {site.name: site for site in hub.store.sites()} | dict(made)
    there = [name for name, site in sites.items() if chosen.matches(name, labels_of(site))]
    hosts: dict[str, list[HostRecord]] = {}
    for host in hub.store.hosts():
        hosts.setdefault(host.site, []).append(host)
    others = _Others(hub, application)
    coming = {one.release: _chosen(one.sites) for one in beside}
    found: dict[str, list[str]] = {}
    for site in sorted(there):
        ports = _ports(release, hosts.get(site, ()))
        before = others.claims(site) + [
            claim
            for name, where in coming.items()
            if where is not None
            and where.matches(site, labels_of(sites[site]))
            and (claim := others.claim(name)) is not None
            and claim.application != application
        ]
        known = {(c.application, c.route) for c in _find(before, ports, site, domain_of(hub))}
        for conflict in _find([*before, own], ports, site, domain_of(hub)):
            if (conflict.application, conflict.route) not in known:
                why = f"route {conflict.route} of {conflict.application} cannot be: {conflict.why}"
                # What differs from site to site would make a line for each.
                found.setdefault(why.replace(f".{site}.", ".SITE."), []).append(site)
    return found


def _chosen(selector: str) -> Selector | None:
    """Return a selector; None for one that says nothing, which is told elsewhere."""
    try:
        return parse_selector(selector)
    except Rejected:
        return None


def _find(
    claims: Sequence[Claim], ports: Mapping[str, HostPorts], site: str, domain: str
) -> list[RouteConflict]:
    return find_conflicts(claims, ports, site=site, domain=domain)


def _ports(release: Release, hosts: Sequence[HostRecord]) -> dict[str, HostPorts]:
    """Return the hosts of a site that may run a release, with their ports."""
    requires = release.application.spec.placement.requires
    return {
        host.name: host_ports(host.facts) for host in hosts if not match_requirements(requires, host.facts)
    }


class _Others:
    """What other applications claim at sites: those assigned, and those of rollouts that are under way."""

    def __init__(self, hub: Hub, application: str) -> None:
        self._hub = hub
        self._claims: dict[str, Claim | None] = {}
        self._releases = releases_of_others(hub, application)

    def claims(self, site: str) -> list[Claim]:
        """Return the claims at a site."""
        found = (self.claim(release) for release in self._releases.get(site, {}).values())
        return [claim for claim in found if claim is not None and (claim.routes or claim.fixed)]

    def claim(self, name: str) -> Claim | None:
        """Return the claim of a release, None where there is no such release."""
        if name not in self._claims:
            record = self._hub.store.release(name)
            application = msgspec.json.decode(record.document, type=Release).application if record else None
            self._claims[name] = (
                claim_of(application.metadata.name, application.spec) if application else None
            )
        return self._claims[name]


def standings(hub: Hub, hosts: Sequence[HostRecord], now: datetime) -> list[RouteStanding]:
    """Return the routes of hosts as they last reported them, with what was measured in the last hour."""
    since = now - WINDOW
    windows: dict[tuple[str, str], dict[str, list[HostWindow]]] = {}
    found: list[RouteStanding] = []
    for host in hosts:
        for view in host.observed.routes if host.observed else ():
            key = (view.application, view.release)
            if key not in windows:
                windows[key] = _by_host(hub, view, since, sorted({one.site for one in hosts}))
            figures = _figures(view, windows[key].get(host.name, ()), since)
            found.append(
                RouteStanding(
                    site=host.site, host=host.name, as_of=host.observed_at, route=view, figures=figures
                )
            )
    return sorted(found, key=lambda one: (one.site, one.host, one.route.application, one.route.route))


def _by_host(hub: Hub, view: RouteView, since: datetime, sites: Sequence[str]) -> dict[str, list[HostWindow]]:
    found: dict[str, list[HostWindow]] = {}
    if view.release:
        for one in hub.store.metric_windows(view.application, [view.release], since=since, sites=sites):
            found.setdefault(one.host, []).append(one)
    return found


def _figures(view: RouteView, windows: Sequence[HostWindow], since: datetime) -> RouteFigures:
    """Return a route's figures: its own where its component has several routes, else the component's."""
    own = [one.window for one in windows if one.window.component == view.component]
    several = any(one.metric == f"{metric}.{view.route}" for one in own for metric in (ERRORS, BYTES))
    suffix = f".{view.route}" if several else ""

    def rate(metric: str) -> Rate:
        values = [one.value for one in own if one.metric == f"{metric}{suffix}"]
        return merge_rates([value for value in values if isinstance(value, Rate)])

    times = [one.value for one in own if one.metric == f"{LATENCY}{suffix}"]
    histograms = [value for value in times if isinstance(value, Histogram)]
    tails = Tails(merge_histograms(histograms)) if histograms else None
    answered, moved = rate(ERRORS), rate(BYTES)
    return RouteFigures(
        since=since,
        requests=answered.total,
        errors=answered.bad,
        received_bytes=moved.bad,
        sent_bytes=moved.total - moved.bad,
        p50_ms=tails.quantile(0.5) if tails else None,
        p95_ms=tails.quantile(0.95) if tails else None,
        p99_ms=tails.quantile(0.99) if tails else None,
    )
