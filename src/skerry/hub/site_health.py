"""Gathers what the hub knows of sites, and asks `skerry.telemetry.health` how they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.hub.forecasting import foresee
from skerry.hub.services import Hub
from skerry.kit.quantities import parse_duration
from skerry.ports.hub_store import AssignmentRecord, HostRecord, SiteRecord
from skerry.spec.api_forecast import ForecastView
from skerry.spec.api_health import HealthView
from skerry.spec.site import Site
from skerry.telemetry.health import Ending, HostCondition, SiteCondition, decide_health

MAX_NAMES = 400


class FleetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of hosts beyond their own records, by host."""

    endings: Mapping[str, tuple[Ending, ...]]
    silences: Mapping[str, Sequence[timedelta]]
    lost_at: Mapping[str, datetime]


def judge_sites(
    hub: Hub,
    sites: Sequence[SiteRecord],
    hosts: Sequence[HostRecord],
    assignments: Sequence[AssignmentRecord],
    *,
    now: datetime,
) -> dict[str, HealthView]:
    """Return how these sites are, by name. `hosts` are theirs, as fresh as is known. Blocking."""
    facts = _gather(hub, hosts, now)
    of_site: defaultdict[str, list[HostRecord]] = defaultdict(list)
    for host in hosts:
        of_site[host.site].append(host)
    wanted: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for one in assignments:
        wanted[one.site][one.application] = one.release
    return {
        site.name: decide_health(_condition(hub, site, of_site[site.name], wanted[site.name], facts), now=now)
        for site in sites
    }


def _gather(hub: Hub, hosts: Sequence[HostRecord], now: datetime) -> FleetFacts:
    ending: defaultdict[str, list[Ending]] = defaultdict(list)
    for view in foresee(hub.store, hub.secrets, hosts, within=timedelta(), now=now):
        ending[view.host].append(_ending(view))
    # Databases take only so many names in one question.
    few = {host.name for host in hosts} if len(hosts) <= MAX_NAMES else None
    told = hub.store.telemetry_hosts(few)
    lost = {
        one.host: max(stream.lost_at for stream in one.streams if stream.lost_at is not None)
        for one in told
        if any(stream.lost_at is not None for stream in one.streams)
    }
    return FleetFacts(
        endings={host: tuple(found) for host, found in ending.items()},
        silences=hub.store.silences(),
        lost_at=lost,
    )


def _condition(
    hub: Hub, site: SiteRecord, hosts: Sequence[HostRecord], wanted: Mapping[str, str], facts: FleetFacts
) -> SiteCondition:
    spec = msgspec.json.decode(site.document, type=Site).spec
    return SiteCondition(
        tolerance=timedelta(seconds=parse_duration(spec.offline_tolerance)),
        hosts=tuple(_host(hub, host, facts) for host in hosts),
        wanted=wanted,
        carried=spec.reached_by == "bundle",
        held=hub.issuer.recovering.held(site.name) is not None,
    )


def _host(hub: Hub, host: HostRecord, facts: FleetFacts) -> HostCondition:
    quarantine = hub.backend.identities.quarantine(host.name)
    return HostCondition(
        name=host.name,
        heard_at=host.last_seen_at or host.enrolled_at,
        observed_at=host.observed_at,
        observed=host.observed,
        silences=tuple(facts.silences.get(host.name, ())),
        endings=facts.endings.get(host.name, ()),
        lost_at=facts.lost_at.get(host.name),
        quarantine=(quarantine.why or "it is not known why") if quarantine else "",
    )


def _ending(view: ForecastView) -> Ending:
    named = f"{view.kind} {view.name}" + (f" version {view.version}" if view.version else "")
    return Ending(what=named, at=view.ends_at, why=view.why[0] if view.why else "")
