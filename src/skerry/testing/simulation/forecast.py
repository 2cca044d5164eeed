"""The sites of a hub as a simulation takes them: what is known of them, and what has to be assumed.

A site that is heard of now is taken to stay so; one that is silent, to stay silent. What hosts reported decides which
variants they get and what travels; that the release is good is an assumption, too, unless a scenario says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from skerry.kit.quantities import parse_size
from skerry.matching.answering import Previewer, PreviewHost
from skerry.spec.api import HostView, SiteView
from skerry.spec.desired import SitePolicy
from skerry.spec.metadata import Metadata
from skerry.spec.release import Release
from skerry.spec.site import Site, SiteSpec
from skerry.testing.simulation.documents import ScenarioSpec
from skerry.testing.simulation.fleet import HostPlan, SitePlan, as_written, behaviour_of, match_facts

ONLINE, SILENT = "online now", "silent now"
ASSUMED_RATE = "10Mbit/s"


class HubFleet(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub knows. `traffic` is, by site, how many bytes of the release it has yet to fetch."""

    sites: Sequence[SiteView]
    hosts: Sequence[HostView]
    release: Release | None = None
    traffic: Mapping[str, int] = {}


def plan_forecast(
    fleet: HubFleet, application: str, scenario: ScenarioSpec, *, seed: int
) -> tuple[list[SitePlan], tuple[str, ...]]:
    """Return the sites of a hub that have hosts, and what is assumed of them."""
    hosts: dict[str, list[HostView]] = {}
    for host in fleet.hosts:
        hosts.setdefault(host.site, []).append(host)
    previewer = Previewer(fleet.release) if fleet.release is not None else None
    plans = [
        _plan(site, hosts[site.name], application, scenario, Random(f"{seed}/{site.name}"))
        for site in fleet.sites
        if site.name in hosts
    ]
    plans = [
        msgspec.structs.replace(
            plan,
            size_bytes=fleet.traffic.get(plan.name, plan.size_bytes),
            hosts=_matched(plan, hosts[plan.name], previewer, _spec_of(site)),
        )
        for plan, site in zip(plans, (s for s in fleet.sites if s.name in hosts), strict=True)
    ]
    return plans, tuple(_assumptions(fleet, plans, hosts))


def _plan(
    site: SiteView, hosts: Sequence[HostView], application: str, scenario: ScenarioSpec, rng: Random
) -> SitePlan:
    online = site.presence == "online"
    plan = SitePlan(
        name=site.name,
        labels=site.labels,
        group=ONLINE if online else SILENT,
        hosts=tuple(
            HostPlan(
                name=host.name,
                behaviour=behaviour_of(scenario.release.faults, site.labels.get("hardware", ""), rng),
                skew_s=host.clock_offset_s or 0.0,
            )
            for host in sorted(hosts, key=lambda host: host.name)
        ),
        link="always-on" if online else "dead",
        size_bytes=parse_size(scenario.release.size),
        previous=site.assignments.get(application, ""),
    )
    return as_written(plan, _spec_of(site), rate=ASSUMED_RATE)


def _spec_of(site: SiteView) -> SiteSpec:
    if not site.document:
        return Site(metadata=Metadata(site.name)).spec
    return msgspec.convert(site.document, Site).spec


def _matched(
    plan: SitePlan, hosts: Sequence[HostView], previewer: Previewer | None, spec: SiteSpec
) -> tuple[HostPlan, ...]:
    facts = {host.name: host.facts for host in hosts}
    if previewer is None:
        return plan.hosts
    policy = SitePolicy(host_network=spec.host_network)

    def seen(name: str) -> PreviewHost:
        return PreviewHost(
            site=plan.name, facts=facts[name], policy=policy, name=name, bindings=spec.bindings
        )

    return tuple(
        msgspec.structs.replace(host, problem=match_facts(previewer, seen(host.name))[0])
        if facts[host.name]
        else host
        for host in plan.hosts
    )


def _assumptions(
    fleet: HubFleet, plans: Sequence[SitePlan], hosts: Mapping[str, Sequence[HostView]]
) -> list[str]:
    online = sum(plan.group == ONLINE for plan in plans)
    said = [
        f"{online} sites that are heard of now stay so, with {ASSUMED_RATE} or what their site's link allows"
    ]
    if silent := len(plans) - online:
        said.append(f"{silent} sites that are silent now stay silent")
    if empty := len(fleet.sites) - len(plans):
        said.append(f"{empty} sites without hosts are left out")
    if fleet.release is None:
        said.append("the hub does not have the release: it fits every host, and its size is the scenario's")
    elif untold := sum(not host.facts for found in hosts.values() for host in found):
        said.append(f"the release fits {untold} hosts that have not told their facts")
    said.append("every host runs the release on its own; where it is placed by turns is not simulated")
    said.append("nobody holds a site, and the release works wherever the scenario does not say that it fails")
    return said
