"""Names of sites as the hub knows them, from what their hosts last reported."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from skerry.hub.routing import domain_of
from skerry.hub.services import Hub
from skerry.matching.name_trace import HostSeen, trace_name
from skerry.matching.names import find_names
from skerry.ports.hub_store import HostRecord
from skerry.spec.api_names import NameExplanation, NameStanding
from skerry.spec.report import Observed

LAN_FACT = "lan_address"


def name_standings(hub: Hub, hosts: Sequence[HostRecord]) -> list[NameStanding]:
    """Return the names of the sites of these hosts."""
    sites: dict[str, list[HostRecord]] = {}
    for host in hosts:
        sites.setdefault(host.site, []).append(host)
    found: list[NameStanding] = []
    for site, there in sorted(sites.items()):
        seen = [_seen(host) for host in there]
        answering = tuple(sorted(one.host for one in seen if one.dns and one.dns.listens))
        names = find_names([one.words() for one in seen], site=site, domain=domain_of(hub))
        found += [
            NameStanding(site=site, as_of=_as_of(there), name=name, answered_by=answering)
            for name in names.values()
        ]
    return found


def explain(hub: Hub, name: str, site: str, hosts: Sequence[HostRecord]) -> NameExplanation:
    """Return where a name leads at a site, and why."""
    trace = trace_name(name, [_seen(host) for host in hosts], site=site, domain=domain_of(hub))
    return NameExplanation(name=name, site=site, as_of=_as_of(hosts), trace=trace)


def _as_of(hosts: Sequence[HostRecord]) -> datetime | None:
    return min((host.observed_at for host in hosts if host.observed_at is not None), default=None)


def _seen(host: HostRecord) -> HostSeen:
    observed = host.observed or Observed()
    fact = host.facts.get(LAN_FACT)
    place = str(fact.value) if fact is not None else ""
    return HostSeen(
        host=host.name,
        address=place.rpartition(":")[0].strip("[]"),
        routes=observed.routes,
        away=frozenset(name for name, view in observed.applications.items() if view.duty == "stand-by"),
        hears=frozenset(name for name, hearing in observed.neighbours.items() if hearing == "heard"),
        dns=observed.dns,
    )
