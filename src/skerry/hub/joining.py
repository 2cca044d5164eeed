"""Exclusive bindings as the hub knows them: whether a release would use what another application has already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from skerry.hub.other_applications import releases_of_others
from skerry.hub.routing import MAX_TOLD
from skerry.hub.secret_keeping import labels_of
from skerry.hub.services import Hub
from skerry.kit.errors import Rejected
from skerry.matching.bindings import describe_holder, held_alone
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import ReleaseRecord
from skerry.spec.binding import BindingNeed, BindingSpec
from skerry.spec.problems import Problem
from skerry.spec.release import Release
from skerry.spec.site import Site


def check_joined(
    hub: Hub, release: ReleaseRecord, selector: str, new_sites: Sequence[Site]
) -> Iterator[Problem]:
    """Yield which exclusive bindings of a release are another's, and at which of the sites that a selector names."""
    document = msgspec.json.decode(release.document, type=Release)
    for why, sites in binding_conflicts(hub, document, selector, new_sites).items():
        more = f" and {len(sites) - MAX_TOLD} more" if len(sites) > MAX_TOLD else ""
        hint = "skerry describe site shows who uses what; labels of needs choose another"
        yield Problem("spec.release", f"{why}: at {', '.join(sites[:MAX_TOLD])}{more}", hint)


def binding_conflicts(
    hub: Hub, release: Release, selector: str, new_sites: Sequence[Site] = ()
) -> dict[str, tuple[str, ...]]:
    """Return which exclusive bindings of a release are another's, and at which of the sites of a selector."""
    needs = release.application.spec.needs
    if not needs:
        return {}
    try:
        chosen = parse_selector(selector)
    except Rejected:  # that is told elsewhere
        return {}
    sites = {
        site.name: msgspec.json.decode(site.document, type=Site)
        for site in hub.store.sites()
        if chosen.matches(site.name, labels_of(site))
    }
    new = {site.metadata.name: site for site in new_sites}
    sites = {name: new.pop(name, site) for name, site in sites.items()}
    sites |= {name: site for name, site in new.items() if chosen.matches(name, site.metadata.labels)}
    offered = {
        name: site.spec.bindings
        for name, site in sorted(sites.items())
        if any(one.exclusive for one in site.spec.bindings)
    }
    found: dict[str, list[str]] = {}
    users = _Users(hub, release.application.metadata.name) if offered else None
    for name, bindings in offered.items():
        assert users is not None
        for why in users.conflicts(name, needs, bindings):
            found.setdefault(why, []).append(name)
    return {why: tuple(places) for why, places in found.items()}


class _Users:
    """What the other applications of sites need: those assigned, and those of rollouts that are under way."""

    def __init__(self, hub: Hub, application: str) -> None:
        self._store = hub.store
        self._needs: dict[str, tuple[BindingNeed, ...]] = {}
        self._releases = releases_of_others(hub, application)
        self._hosts: dict[str, list[str]] = {}
        for host in hub.store.hosts():
            self._hosts.setdefault(host.site, []).append(host.name)

    def conflicts(
        self, site: str, needs: Sequence[BindingNeed], offered: Sequence[BindingSpec]
    ) -> Iterator[str]:
        """Yield what is another's already of what an application would get."""
        hosts = self._hosts.get(site, ())
        own = held_alone(needs, offered, hosts)
        for other, release in sorted(self._releases.get(site, {}).items()) if own else ():
            for binding in sorted(own & held_alone(self._needs_of(release), offered, hosts)):
                yield describe_holder(binding, other)

    def _needs_of(self, name: str) -> tuple[BindingNeed, ...]:
        if name not in self._needs:
            record = self._store.release(name)
            release = msgspec.json.decode(record.document, type=Release) if record else None
            self._needs[name] = release.application.spec.needs if release else ()
        return self._needs[name]
