"""Why a name of a site leads where it does: pure, from what hosts reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from skerry.matching.names import Asked, HostWords, answer_question, find_names, is_below, lay_zone, words_of
from skerry.spec.api_ingress import RouteHop, RouteTrace
from skerry.spec.ingress import SHORT_DOMAIN, RouteView
from skerry.spec.names import DnsView

MAX_TOLD = 10


class HostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A host as it last reported: `away` are applications that stand by there, `hears` the hosts that it hears."""

    host: str
    address: str = ""
    routes: tuple[RouteView, ...] = ()
    away: frozenset[str] = frozenset()
    hears: frozenset[str] = frozenset()
    dns: DnsView | None = None

    def words(self, *, heard: bool = True) -> HostWords:
        """Return what it says of names."""
        said = words_of(self.routes, self.away)
        return HostWords(host=self.host, address=self.address, heard=heard, words=said)


def trace_name(name: str, hosts: Sequence[HostSeen], *, site: str, domain: str) -> RouteTrace:
    """Return where a name leads at a site, and why there and nowhere else."""
    asked = name.strip().rstrip(".").lower()
    apex = next((one for one in (f"{site}.{domain}", SHORT_DOMAIN) if is_below(asked, one)), "")
    if not apex:
        told = f"{asked} is none of {site}, whose names end with {site}.{domain} and {SHORT_DOMAIN}"
        hop = RouteHop("name", f"{told}; a DNS of the site asks others for it")
        return RouteTrace(hops=(hop,), outcome="nobody at the site")
    hops = [RouteHop("name", f"{asked} is a name of {apex}")]
    hops += [hop for host in hosts for hop in _at_host(asked, host)]
    names = find_names([host.words() for host in hosts], site=site, domain=domain)
    found = names.get(asked)
    if found is None:
        known = ", ".join(sorted(names)[:MAX_TOLD]) or "none"
        hops.append(RouteHop("leads to", f"nobody: no host has a route of that name; names there: {known}"))
    else:
        hops.append(RouteHop("leads to", ", ".join(f"{one.address} ({one.host})" for one in found.places)))
    hops += _answers(asked, hosts, site=site, domain=domain)
    places = ", ".join(f"{one.address} ({one.host})" for one in found.places) if found else ""
    return RouteTrace(hops=tuple(hops), outcome=places or "nobody: no host has a route of that name")


def _at_host(asked: str, host: HostSeen) -> Iterator[RouteHop]:
    """Yield how the routes of a name stand at a host."""
    for view in host.routes:
        if asked not in view.names:
            continue
        title = f"route {view.route} of {view.application}"
        if view.state == "refused":
            answer = f"{title} is not in force: {view.why}"
        elif view.expose == "host":
            answer = f"{title} is for programs of this host alone: they get 127.0.0.1"
        elif view.application in host.away:
            answer = f"{view.application} stands by: the name does not lead here"
        elif not host.address:
            answer = f"{title} is there, and the host knows no address of its own"
        elif view.state == "waiting":
            answer = f"{title} is there and does not serve: {view.why}; only where nobody else serves"
        else:
            answer = f"{title} serves on port {view.port}"
        yield RouteHop(f"{host.host}", answer)


def _answers(asked: str, hosts: Sequence[HostSeen], *, site: str, domain: str) -> Iterator[RouteHop]:
    """Yield what the DNS of each host that has one answers, by what it hears."""
    serving: Mapping[str, DnsView] = {host.host: host.dns for host in hosts if host.dns and host.dns.listens}
    for host in hosts:
        dns = host.dns
        if dns is not None and dns.trouble:
            yield RouteHop(f"DNS of {host.host}", dns.trouble)
        if host.host not in serving:
            continue
        seen = [one.words(heard=one is host or one.host in host.hears) for one in hosts]
        answer = answer_question(
            lay_zone(seen, site=site, domain=domain, own=host.host), Asked(asked, "ANY", near=False)
        )
        records = answer.records if answer else ()
        data = [record.data for record in records if record.type in ("A", "AAAA")]
        at = ", ".join(serving[host.host].listens)
        yield RouteHop(f"DNS of {host.host}", f"at {at} answers {', '.join(data) or 'that there is none'}")
    if not serving:
        yield RouteHop("DNS", f"no host of {site} has one: skerry agent run --dns ADDRESS")
