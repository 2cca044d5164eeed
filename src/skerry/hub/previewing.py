"""Gathers what the hub knows of hosts for previews and placements: facts as last reported, and what they hold.

Which devices a host has given to whom it does not report; they are worked out from its facts as the host does it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import reduce

import msgspec

from skerry.hub.placing import absent_on
from skerry.matching.asking import device_needs
from skerry.matching.bindings import site_lacks
from skerry.matching.capacity import Need, need_of
from skerry.matching.devices import match_devices, taken_by
from skerry.matching.placement import Placed, SiteState, place_site
from skerry.matching.preview import PreviewHost
from skerry.matching.selector import Selector
from skerry.ports.hub_store import HostRecord, HubStore, SiteRecord
from skerry.spec.api import PlacementView
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DesiredState, SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.release import Release
from skerry.spec.report import ApplicationView, VariantChoice
from skerry.spec.site import Site, SiteSpec


class Previewing:
    """One preview's look at the store; every release and every set of files is worked out once."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._releases: dict[str, Release | None] = {}
        self._needs: dict[str, Need] = {}
        self._files: dict[tuple[str, tuple[VariantChoice, ...]], frozenset[str]] = {}
        self._held: dict[tuple[frozenset[str], ...], frozenset[str]] = {}

    def hosts(self, application: str, selector: Selector) -> dict[str, PreviewHost]:
        """Return the hosts of the sites that a selector names, as they are for one application."""
        sites = self._sites(selector)
        return {
            host.name: self._host(host, application, sites[host.site])
            for host in self._store.hosts()
            if host.site in sites
        }

    def excluded(self, release: Release, selector: Selector) -> dict[str, str]:
        """Return the sites of a selector that lack a binding which a release needs, with the reason."""
        needs = release.application.spec.needs
        if not needs:
            return {}
        hosts: dict[str, list[str]] = {}
        for host in self._store.hosts():
            hosts.setdefault(host.site, []).append(host.name)
        lacks = {
            name: site_lacks(needs, site.bindings, hosts.get(name, ()))
            for name, site in self._sites(selector).items()
        }
        return {name: why for name, why in lacks.items() if why}

    def placements(self, record: SiteRecord) -> list[PlacementView]:
        """Return the placements of a site's applications: as issued, and as they would be issued now."""
        desired = _desired(record)
        issued = desired.placements if desired else {}
        assigned = {a.application: a.release for a in self._store.assignments(record.name)}
        found = {name: self._release(release) for name, release in assigned.items()}
        releases = {name: release for name, release in found.items() if release is not None}
        now = place_site(releases, self._state(record), previous=issued)
        return [
            PlacementView(
                application=name,
                release=assigned[name],
                generation=record.generation,
                issued=issued.get(name),
                now=placed.placement if isinstance(placed, Placed) else None,
                why=dict(placed.why)
                if isinstance(placed, Placed)
                else {
                    host: f"does not fit: {'; '.join(reasons)}" for host, reasons in placed.reasons.items()
                },
            )
            for name, placed in now.items()
        ]

    def _state(self, record: SiteRecord) -> SiteState:
        hosts = self._store.hosts(record.name)
        failed = {
            host.name: {
                key: reason for view in _applications(host) for key, reason in view.failed_variants.items()
            }
            for host in hosts
        }
        site = msgspec.json.decode(record.document, type=Site).spec
        return SiteState(
            hosts={host.name: host.facts for host in hosts},
            policy=SitePolicy(host_network=site.host_network),
            failed=failed,
            bindings=site.bindings,
            absent={host.name: absent_on(host) for host in hosts},
        )

    def _sites(self, selector: Selector) -> dict[str, SiteSpec]:
        sites = (msgspec.json.decode(record.document, type=Site) for record in self._store.sites())
        return {
            site.metadata.name: site.spec
            for site in sites
            if selector.matches(site.metadata.name, site.metadata.labels)
        }

    def _host(self, host: HostRecord, application: str, site: SiteSpec) -> PreviewHost:
        applications = host.observed.applications if host.observed else {}
        own = applications.get(application)
        others = [view.release for name, view in applications.items() if name != application and view.release]
        held = tuple(self._files_of(view.release, view.choices) for view in applications.values())
        return PreviewHost(
            site=host.site,
            facts=host.facts,
            policy=SitePolicy(host_network=site.host_network),
            holds=self._together(held),
            reserved=reduce(lambda need, name: need.plus(self._need(name)), others, Need()),
            failed=own.failed_variants if own else {},
            taken=self._taken(others, host.facts),
            as_of=host.last_seen_at,
            name=host.name,
            bindings=site.bindings,
        )

    def _taken(self, others: list[str], facts: HostFacts) -> frozenset[str]:
        taken: frozenset[str] = frozenset()
        for name in sorted(others):
            release = self._release(name)
            needs = device_needs(release) if release else ()
            if needs:
                taken |= taken_by(needs, match_devices(needs, facts, taken).given)
        return taken

    def _release(self, name: str) -> Release | None:
        if name not in self._releases:
            record = self._store.release(name)
            self._releases[name] = msgspec.json.decode(record.document, type=Release) if record else None
        return self._releases[name]

    def _need(self, name: str) -> Need:
        if name not in self._needs:
            release = self._release(name)
            self._needs[name] = need_of(release.application.spec) if release else Need()
        return self._needs[name]

    def _files_of(self, name: str, choices: tuple[VariantChoice, ...]) -> frozenset[str]:
        key = (name, choices)
        if key not in self._files:
            release = self._release(name) if name else None
            self._files[key] = frozenset(_digests(release, choices)) if release else frozenset()
        return self._files[key]

    def _together(self, held: tuple[frozenset[str], ...]) -> frozenset[str]:
        if held not in self._held:
            self._held[held] = frozenset[str]().union(*held)
        return self._held[held]


def _digests(release: Release, choices: tuple[VariantChoice, ...]) -> Iterator[str]:
    """Yield the digests of what a host holds that runs a release with these choices."""
    picked = {(choice.kind, choice.model, choice.variant) for choice in choices}
    for component in release.application.spec.components:
        yield from (str(file.digest) for file in (component.bundle.files if component.bundle else ()))
        for image in component.image.variants if component.image else ():
            if ("image", component.name, image.name) in picked and image.config is not None:
                yield from (str(file.digest) for file in (image.config, *image.layers))
    for model in release.models:
        for variant in model.spec.variants:
            if ("model", model.metadata.name, variant.name) in picked:
                yield from (str(file.digest) for file in variant.files)


def _applications(host: HostRecord) -> Iterator[ApplicationView]:
    yield from (host.observed.applications if host.observed else {}).values()


def _desired(record: SiteRecord) -> DesiredState | None:
    """Return what was last issued. It is our own signature from our own database: read, not trusted."""
    if record.desired is None:
        return None
    envelope = msgspec.json.decode(record.desired, type=JsonEnvelope)
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)
