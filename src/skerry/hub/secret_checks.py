"""Checks documents against the secrets there are: rollouts that would lack a value, sites that would get two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from skerry.hub.secret_keeping import labels_of, secrets_at, secrets_of
from skerry.hub.services import Hub
from skerry.kit.canonical import encode_canonical
from skerry.kit.errors import Rejected
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import ReleaseRecord, SiteRecord
from skerry.spec.problems import Problem
from skerry.spec.release import Release
from skerry.spec.site import Site

MAX_TOLD = 20


def check_secrets(
    hub: Hub, release: ReleaseRecord, selector: str, new_sites: Sequence[Site]
) -> Iterator[Problem]:
    """Yield which secrets of a release have no value now at which of the sites that a selector names."""
    made = {
        s.metadata.name: SiteRecord(name=s.metadata.name, document=encode_canonical(s)) for s in new_sites
    }
    content = msgspec.json.decode(release.document, type=Release)
    for name, lacking in _lacking(hub, content, selector, made).items():
        message = f"{release.name} uses secret {name}, which has no value at {_told(lacking)}"
        yield Problem("spec.release", message, f"skerry secret set {name}; see skerry explain secret {name}")


def lacking_secrets(hub: Hub, release: Release, selector: str) -> dict[str, tuple[str, ...]]:
    """Return which secrets of a release have no value now, and at which of the sites of a selector."""
    return {name: tuple(sites) for name, sites in _lacking(hub, release, selector, {}).items()}


def check_ties(hub: Hub, sites: Sequence[Site]) -> Iterator[Problem]:
    """Yield which sites, with the labels that they are to have, would leave open which value of a secret is meant."""
    labels = {site.metadata.name: site.metadata.labels for site in sites}
    for name, tied in (hub.secrets.ties(labels) if labels else {}).items():
        for site in tied:
            message = f"two values of secret {name} would be for it alike"
            yield Problem(
                f"Site {site}: metadata.labels", message, f"skerry secret versions {name} shows them"
            )


def _lacking(
    hub: Hub, release: Release, selector: str, made: Mapping[str, SiteRecord]
) -> dict[str, list[str]]:
    needed, needs = secrets_of(release), release.application.spec.needs
    if not needed and not needs:
        return {}
    try:
        chosen = parse_selector(selector)
    except Rejected:  # that is told elsewhere
        return {}
    sites = {site.name: site for site in hub.store.sites()} | dict(made)
    there = [site for site in sites.values() if chosen.matches(site.name, labels_of(site))]
    found = hub.secrets.lacking(needed, there)
    for site in there if needs else ():
        joined = secrets_at(needs, site, [host.name for host in hub.store.hosts(site.name)])
        for name, lacking in hub.secrets.lacking(joined - needed, [site]).items():
            found.setdefault(name, []).extend(lacking)
    return found


def _told(names: Sequence[str]) -> str:
    more = len(names) - MAX_TOLD
    return ", ".join(names[:MAX_TOLD]) + (f" and {more} more" if more > 0 else "")
