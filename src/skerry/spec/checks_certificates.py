"""Checks of the certificates that a component wants, and of the networks that a site's may be for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from skerry.spec.application import Component
from skerry.spec.checks_files import check_unique
from skerry.spec.checks_secrets import check_on_change
from skerry.spec.problems import Problem
from skerry.spec.site import SiteSpec


def check_certificates(path: str, component: Component) -> Iterator[Problem]:
    """Yield what is wrong with the certificates of a component."""
    yield from check_unique(f"{path}.certificates", "name", [use.name for use in component.certificates])
    for index, use in enumerate(component.certificates):
        own = f"{path}.certificates[{index}]"
        yield from check_unique(f"{own}.dns", "name", use.dns)
        yield from check_on_change(f"{own}.on_change", use.on_change, component)


def check_site_networks(spec: SiteSpec) -> Iterator[Problem]:
    """Yield what is wrong with the networks of a site."""
    seen: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for index, text in enumerate(spec.networks):
        path = f"spec.networks[{index}]"
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            yield Problem(path, f"not a network: {error}", "write one such as 10.20.0.0/16")
            continue
        if network.prefixlen == 0:
            yield Problem(path, "is every address there is", "write the site's own networks")
        if network in seen:
            yield Problem(path, f"{text} is there twice")
        seen.append(network)
