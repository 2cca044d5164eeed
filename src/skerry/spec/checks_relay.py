"""Checks of a Relay: what could never serve anybody, or dials in a circle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from skerry.spec.checks_files import check_unique
from skerry.spec.checks_link import check_site_link
from skerry.spec.problems import Problem
from skerry.spec.relay import Relay
from skerry.spec.site import SiteSpec


def check_relay(relay: Relay) -> Iterator[Problem]:
    """Yield what is wrong with a relay by itself; its time zone is looked at elsewhere."""
    spec = relay.spec
    yield from check_unique("spec.upstreams", "relay", spec.upstreams)
    yield from check_unique("spec.addresses", "address", spec.addresses)
    if relay.metadata.name in spec.upstreams:
        hint = "name the relays above it, or none where it dials the hub"
        yield Problem("spec.upstreams", f"{relay.metadata.name} names itself", hint)
    for index, address in enumerate(spec.addresses):
        _, colon, port = address.rpartition("]")[2].partition(":")
        if colon and not 1 <= int(port) <= 65535:
            yield Problem(f"spec.addresses[{index}]", f"there is no port {port}", "1 to 65535")
    yield from check_site_link(SiteSpec(link=spec.link))


def find_circle(upstreams: Mapping[str, Sequence[str]], start: str) -> tuple[str, ...]:
    """Return the names on a way from a relay by its upstreams back to itself; empty when there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for upper in upstreams.get(way[-1], ()):
            if upper == start:
                return (*way, start)
            if upper not in seen:
                seen.add(upper)
                ways.append((*way, upper))
    return ()
