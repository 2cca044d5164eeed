"""The topics of a site's hosts, written into its DesiredState where some have to go from one host to another."""

from __future__ import annotations

import msgspec

from skerry.hub.site_use import SiteUse
from skerry.matching.bus_links import plan_links
from skerry.spec.desired import DesiredState
from skerry.spec.topics import BUS_ADDRESS_FACT, HostTopics


def link_buses(use: SiteUse, desired: DesiredState) -> DesiredState:
    """Return the document with what each host's applications publish and read, for the hosts that are to be linked."""
    if desired.policy.broker == "none" or len(desired.hosts) < 2:
        return desired
    addresses = {host.name: host.facts.get(BUS_ADDRESS_FACT) for host in use.hosts}
    buses: dict[str, HostTopics] = {}
    for host, assignments in desired.hosts.items():
        found = [
            use.releases[one.application].application.spec.topics
            for one in assignments
            if one.application in use.releases
        ]
        fact = addresses.get(host)
        buses[host] = HostTopics(
            address=fact.value if fact is not None and isinstance(fact.value, str) else "",
            publish=tuple(sorted({topic for topics in found for topic in topics.publish})),
            subscribe=tuple(sorted({topic for topics in found for topic in topics.subscribe})),
        )
    plans = {host: plan_links(host, buses) for host in buses}
    linked = {host: buses[host] for host, plan in sorted(plans.items()) if plan.sends or plan.takes}
    return msgspec.structs.replace(desired, bus=linked) if linked else desired
