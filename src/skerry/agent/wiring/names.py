"""Puts together the names of a host."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from skerry.adapters.dns_server import DnsNameServer
from skerry.adapters.resolv_conf import read_name_servers
from skerry.adapters.zeroconf_announcer import ZeroconfAnnouncer
from skerry.agent.identity import Identity
from skerry.agent.loops.neighbours import NeighbourLoop
from skerry.agent.loops.sync import Syncer
from skerry.agent.name_places import parse_dns_places
from skerry.agent.services.ingress import HostIngress
from skerry.agent.services.names import DNS_PORT, HostNames, NamesParts
from skerry.ports.clock import Clock

USUAL_PORT = 8053
"""Of a DNS whose agent may not have port 53."""


class StatedNames(msgspec.Struct, frozen=True, kw_only=True):
    """Where the DNS listens and whom it asks for other names (`HOST:PORT`), and whether routes are announced.

    Without `upstreams` those of the host are asked.
    """

    places: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    announces: bool = False


def state_names(dns: tuple[str, ...], upstreams: tuple[str, ...], *, announce: bool) -> StatedNames:
    """Return what a person stated of names.

    Raises:
        Rejected: an address is none (`names.malformed`).
    """
    own = DNS_PORT if os.geteuid() == 0 else USUAL_PORT
    return StatedNames(
        places=parse_dns_places(dns, port=own),
        upstreams=parse_dns_places(upstreams, port=DNS_PORT),
        announces=announce,
    )


def open_names(
    identity: Identity,
    syncer: Syncer,
    clock: Clock,
    stated: StatedNames,
    *,
    neighbours: NeighbourLoop,
    ingress: tuple[HostIngress, Callable[[], str]],
) -> HostNames:
    """Return the names of a host; `ingress` is what has its routes, with the domain of the site's names."""

    def upstreams() -> tuple[str, ...]:
        return tuple(one for one in stated.upstreams or read_name_servers() if one not in stated.places)

    routes, domain = ingress
    return HostNames(
        NamesParts(
            host=identity.place.host,
            site=identity.place.site,
            places=stated.places,
            upstreams=upstreams,
            announces=stated.announces,
            server=DnsNameServer(clock),
            announcer=ZeroconfAnnouncer(),
            neighbours=neighbours,
            routes=lambda: routes.views,
            away=lambda: {name for name, duty in neighbours.duties().items() if not duty.active},
            domain=domain,
            clock=clock,
            note=syncer.note,
        )
    )
