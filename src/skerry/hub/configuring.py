"""Configurations at the hub: revisions of them, what they come to for each host, and what is issued of it.

Rules: a site is issued the revision that its rollout named, whatever was applied since; what breaks the schema, or
names what there is not, is never issued: the site keeps the application as it was issued before, and the rollout is
told why. Facts are filled in as they were when a rollout brought the configuration, so that one that changes restarts
nothing. A host that has not told its facts yet waits, where the configuration names some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.hub.site_use import SiteUse
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.editions import REVISION_DIGITS, revision_of
from skerry.matching.configured import Answer, configure
from skerry.matching.filling import Known, uses_host
from skerry.ports.configurations import RevisionRecord
from skerry.ports.hub_store import HostRecord, HubStore
from skerry.spec.configuration import MAX_SITE_BYTES, Configuration, Configured
from skerry.spec.desired import Assignment, DesiredState
from skerry.spec.release import Release
from skerry.spec.site import Site

MAX_CACHED = 64


class Configuring:
    """Knows the revisions of configurations. Blocking; usable from any thread."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._revisions: dict[tuple[str, str], tuple[Configuration, ...]] = {}

    def documents(self, application: str) -> tuple[Configuration, ...]:
        """Return the configurations of an application as they are now, by name."""
        return _decoded(record.document for record in self._store.configurations(application))

    def at(self, application: str, revision: str) -> tuple[Configuration, ...] | None:
        """Return the configurations of an application at a revision, None when that is not known here."""
        if not revision:
            return ()
        key = (application, revision)
        if key not in self._revisions:
            record = self._store.revision(application, revision)
            if record is None:
                return None
            if len(self._revisions) >= MAX_CACHED:
                self._revisions.clear()
            self._revisions[key] = _decoded(
                map(bytes, msgspec.json.decode(record.documents, type=list[msgspec.Raw]))
            )
        return self._revisions[key]

    def add(self, use: SiteUse, desired: DesiredState) -> DesiredState:
        """Return the document with the configurations of its hosts' applications."""
        site = msgspec.json.decode(use.site.document, type=Site)
        size = 0
        for name, release in sorted(use.releases.items()):
            if release.application.spec.config is None:
                continue
            configured, why = self._for_site(site, name, release, use, desired)
            size += sum(len(encode_canonical(one)) for one in set_of(configured).values())
            if not why and size > MAX_SITE_BYTES:
                why = f"the configurations of the site are more than {MAX_SITE_BYTES} bytes"
            if why:
                use.troubles[name] = why
                desired = _as_before(desired, name, use.before)
            else:
                desired = _with(desired, name, configured)
        return desired

    def _for_site(
        self, site: Site, application: str, release: Release, use: SiteUse, desired: DesiredState
    ) -> tuple[dict[str, Configured], str]:
        """Return what an application's configuration comes to by host; or why it cannot be issued."""
        found: dict[str, Configured] = {}
        for host in use.hosts:
            assigned = _assignment(desired, host.name, application)
            if assigned is None:
                continue
            revision = revision_of(assigned.release)
            documents = self.at(application, revision)
            if documents is None:
                return (
                    {},
                    f"revision {revision} of its configurations is not known here: start another rollout",
                )
            known = known_of(site, host, _kept_facts(use.before, host.name, assigned))
            answer = configure(release, documents, known, revision=revision)
            if not host.facts and uses_host(answer.laid.values):
                continue
            if answer.troubles:
                return {}, f"{host.name}: its configuration: {answer.troubles[0]}"
            found[host.name] = answer.configured
        return found, ""


def set_of(configured: Mapping[str, Configured]) -> dict[str, Configured]:
    """Return configurations by their digests, each once."""
    return {str(digest_of(encode_canonical(one))): one for one in configured.values()}


def known_of(site: Site, host: HostRecord | None, kept: Mapping[str, str] | None = None) -> Known:
    """Return what the hub knows of a site and a host."""
    return Known(
        site=site.metadata.name,
        labels=site.metadata.labels,
        variables=site.spec.variables,
        host=host.name if host else "",
        facts=host.facts if host else {},
        kept=kept or {},
    )


def make_revision(
    application: str, documents: Sequence[Configuration], now: datetime
) -> RevisionRecord | None:
    """Return the revision of an application's configurations; None when there are none."""
    if not documents:
        return None
    content = encode_canonical(sorted(documents, key=lambda one: one.metadata.name))
    digits = hex_of(digest_of(content))[:REVISION_DIGITS]
    return RevisionRecord(application=application, revision=digits, documents=content, made_at=now)


def answers_of(
    release: Release,
    documents: Sequence[Configuration],
    site: Site,
    hosts: Sequence[HostRecord],
    *,
    revision: str = "",
) -> dict[str, Answer]:
    """Return what the configuration of a release comes to for each host of a site; of a site without, by ``."""
    asked: Sequence[HostRecord | None] = hosts or (None,)
    return {
        host.name if host else "": configure(release, documents, known_of(site, host), revision=revision)
        for host in asked
    }


def _with(desired: DesiredState, application: str, configured: Mapping[str, Configured]) -> DesiredState:
    digests = {host: str(digest_of(encode_canonical(one))) for host, one in configured.items()}
    hosts = {
        host: tuple(
            msgspec.structs.replace(one, configuration=digests[host])
            if one.application == application
            else one
            for one in given
            if one.application != application or host in digests
        )
        for host, given in desired.hosts.items()
    }
    configurations = {**desired.configurations, **set_of(configured)}
    return msgspec.structs.replace(desired, hosts=hosts, configurations=configurations)


def _as_before(desired: DesiredState, application: str, before: DesiredState | None) -> DesiredState:
    """Return the document with an application as it was issued before, where it was; else without it."""
    hosts: dict[str, tuple[Assignment, ...]] = {}
    releases, configurations = dict(desired.releases), dict(desired.configurations)
    for host, given in desired.hosts.items():
        kept = [one for one in given if one.application != application]
        old = _assignment(before, host, application) if before is not None else None
        if old is not None and before is not None and old.release in before.releases:
            kept.append(old)
            releases[old.release] = before.releases[old.release]
            if old.configuration and old.configuration in before.configurations:
                configurations[old.configuration] = before.configurations[old.configuration]
        hosts[host] = tuple(sorted(kept, key=lambda one: one.application))
    return msgspec.structs.replace(desired, hosts=hosts, releases=releases, configurations=configurations)


def _assignment(desired: DesiredState, host: str, application: str) -> Assignment | None:
    return next((one for one in desired.hosts.get(host, ()) if one.application == application), None)


def _kept_facts(before: DesiredState | None, host: str, assigned: Assignment) -> Mapping[str, str]:
    old = _assignment(before, host, assigned.application) if before is not None else None
    if before is None or old is None or (old.release, old.attempt) != (assigned.release, assigned.attempt):
        return {}
    held = before.configurations.get(old.configuration or "")
    return held.facts if held else {}


def _decoded(documents: Iterable[bytes]) -> tuple[Configuration, ...]:
    return tuple(msgspec.json.decode(document, type=Configuration) for document in documents)
