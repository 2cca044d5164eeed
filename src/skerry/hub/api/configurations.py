"""Configurations: what is stored, what it comes to at a site, and what applying documents changes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from litestar import delete, get
from litestar.params import FromPath, FromQuery

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.api.scope import Seen
from skerry.hub.configuration_checks import Checking, Found, leaves, pinned
from skerry.hub.configuring import Configuring, known_of, make_revision
from skerry.hub.services import Hub
from skerry.kit.canonical import encode_canonical
from skerry.kit.editions import plain_release, revision_of
from skerry.kit.errors import Missing, Rejected
from skerry.matching.configured import configure
from skerry.matching.layering import target_text
from skerry.matching.selector import parse_selector
from skerry.ports.configurations import ConfigurationChanges, ConfigurationRecord, RevisionRecord
from skerry.ports.hub_store import AssignmentRecord, ReleaseRecord, RolloutRecord, SiteRecord
from skerry.spec.api_configuration import (
    ConfigurationView,
    ConfiguredValue,
    LayerView,
    RenderedConfiguration,
)
from skerry.spec.configuration import Configuration, Values
from skerry.spec.documents import AnyDocument
from skerry.spec.problems import DocumentRejected, Problem
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site


@get("/configurations", sync_to_thread=True)
def list_configurations(hub: TheHub, seen: TheSeen) -> list[ConfigurationView]:
    """List configurations, by name."""
    return [_view(hub, seen, record) for record in hub.store.configurations() if _is_seen(record, seen)]


@get("/configurations/{name:str}", sync_to_thread=True)
def show_configuration(name: FromPath[str], hub: TheHub, seen: TheSeen) -> ConfigurationView:
    """Show one configuration."""
    return _view(hub, seen, _record(hub, seen, name))


@delete("/configurations/{name:str}")
async def remove_configuration(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> None:
    """Forget a configuration; sites keep what they were issued of it until a rollout of the application."""
    record = await asyncio.to_thread(_record, hub, seen, name)
    document = msgspec.json.decode(record.document, type=Configuration)
    if problems := check_configuration_scope(hub, document, seen):
        raise DocumentRejected(problems)
    found = await asyncio.to_thread(lambda: Checking(hub.store, {name: None}).check_changes())
    if found.problems:
        raise DocumentRejected(found.problems)
    audit = audit_of(hub, request, "configuration.remove", f"configuration:{name}")
    await asyncio.to_thread(hub.store.remove_configuration, name, audit)


@get("/sites/{site:str}/configurations/{application:str}", sync_to_thread=True)
def render_configuration(
    site: FromPath[str],
    application: FromPath[str],
    hub: TheHub,
    seen: TheSeen,
    *,
    host: FromQuery[str] = "",
    release: FromQuery[str] = "",
) -> RenderedConfiguration:
    """Say what the configuration of an application comes to at a site or on a host, and what is from where."""
    record = seen.site(site)
    there = next((one for one in hub.store.hosts(site) if one.name == host), None)
    if host and there is None:
        raise Missing(
            "host.missing", f"site {site} has no host {host[:80]}", hint="skerry get hosts lists them"
        )
    assigned = next((a for a in hub.store.assignments(site) if a.application == application), None)
    found = _release(hub, application, release, assigned)
    configuring = Configuring(hub.store)
    documents = configuring.documents(application)
    revision = make_revision(application, documents, hub.clock.now())
    document = msgspec.json.decode(found.document, type=Release)
    if document.application.spec.config is None:
        raise Rejected(
            "configuration.none",
            f"{found.name} takes no configuration",
            hint="write spec.config in the application",
        )
    known = known_of(msgspec.json.decode(record.document, type=Site), there)
    answer = configure(document, documents, known, revision=revision.revision if revision else "")
    values = leaves(answer)
    return RenderedConfiguration(
        application=application,
        site=site,
        host=host,
        release=found.name,
        revision=answer.configured.revision,
        values=answer.configured.values,
        layers=tuple(LayerView(source=one.source, of=one.of) for one in answer.layers),
        origins=tuple(
            ConfiguredValue(path=path, value=values.get(path), source=source)
            for path, source in sorted(answer.laid.origins.items())
        ),
        problems=tuple(map(str, answer.troubles)),
        issued_release=assigned.release if assigned else "",
        issued=_issued(configuring, hub, record, assigned, host),
    )


class ConfigurationPlan:
    """What applying documents does to configurations, and which revisions new rollouts bring."""

    def __init__(self, hub: Hub, documents: Sequence[AnyDocument], who: str) -> None:
        self._hub = hub
        self._who = who
        changed = {one.metadata.name: one for one in documents if isinstance(one, Configuration)}
        held = {record.name: record.document for record in hub.store.configurations()} if changed else {}
        self._changed = {n: one for n, one in changed.items() if held.get(n) != encode_canonical(one)}
        sites = [one for one in documents if isinstance(one, Site)]
        self._sites = [site for site in sites if hub.store.site(site.metadata.name) is not None]
        self._checking = Checking(hub.store, self._changed, sites)
        self._revisions: dict[tuple[str, str], RevisionRecord] = {}

    def check(self) -> Found:
        """Return what the documents would break, and which values they would change where."""
        if not self._changed and not self._sites:
            return Found()
        return self._checking.check_changes()

    def check_rollout(self, rollout: Rollout) -> Iterator[Problem]:
        """Yield what of the configuration speaks against a new rollout."""
        record = self._hub.store.release(rollout.spec.release)
        if record is not None:
            yield from self._checking.check_rollout(
                rollout, msgspec.json.decode(record.document, type=Release)
            )

    def pin(self, record: RolloutRecord) -> RolloutRecord:
        """Return a new rollout that brings its release with the configurations as they are now."""
        release = self._hub.store.release(record.release)
        document = msgspec.json.decode(release.document, type=Release) if release else None
        revision = self._checking.revision(document, record)
        if revision is not None:
            self._revisions[revision.application, revision.revision] = revision
        return pinned(record, revision)

    @property
    def changes(self) -> ConfigurationChanges:
        """What is to be stored."""
        return ConfigurationChanges(
            documents=[
                ConfigurationRecord(
                    name=name,
                    application=one.spec.application,
                    document=encode_canonical(one),
                    changed_at=self._hub.clock.now(),
                    changed_by=self._who,
                )
                for name, one in self._changed.items()
            ],
            revisions=list(self._revisions.values()),
        )


def check_configuration_scope(hub: Hub, document: Configuration, seen: Seen) -> list[Problem]:
    """Return why a caller that is limited to sites may not change a configuration: it reaches others, or did."""
    if not seen.scope.limited:
        return []
    name = document.metadata.name
    stored = next((one for one in hub.store.configurations() if one.name == name), None)
    both = [document, *([msgspec.json.decode(stored.document, type=Configuration)] if stored else [])]
    names = seen.names()
    if all(one.spec.of.site in names for one in both):
        return []
    hint = f"this token is for {seen.scope.text}: write spec.of.site"
    return [Problem(f"Configuration {name}: spec.of", "it is not for a site of this token alone", hint)]


def _is_seen(record: ConfigurationRecord, seen: Seen) -> bool:
    of = msgspec.json.decode(record.document, type=Configuration).spec.of
    return not seen.scope.limited or not of.site or of.site in seen.names()


def _record(hub: Hub, seen: Seen, name: str) -> ConfigurationRecord:
    record = next((one for one in hub.store.configurations() if one.name == name), None)
    if record is None or not _is_seen(record, seen):
        hint = "skerry config list lists them"
        raise Missing("configuration.missing", f"there is no configuration {name[:80]}", hint=hint)
    return record


def _view(hub: Hub, seen: Seen, record: ConfigurationRecord) -> ConfigurationView:
    document = msgspec.json.decode(record.document, type=Configuration)
    return ConfigurationView(
        name=record.name,
        application=record.application,
        of=document.spec.of,
        target=target_text(document.spec.of),
        order=document.spec.order,
        values=document.spec.values,
        changed_at=record.changed_at,
        changed_by=record.changed_by,
        behind=_behind(hub, seen, document),
    )


def _behind(hub: Hub, seen: Seen, document: Configuration) -> tuple[str, ...]:
    """Return the sites whose application is at a revision without this configuration as it is."""
    application, configuring = document.spec.application, Configuring(hub.store)
    names = seen.names()
    held = {
        one.site: configuring.at(application, revision_of(one.release)) or ()
        for one in hub.store.assignments()
        if one.application == application and one.site in names
    }
    sites = {site.name: msgspec.json.decode(site.document, type=Site) for site in hub.store.sites()}
    return tuple(
        name
        for name, documents in sorted(held.items())
        if document not in documents and _could_reach(document, sites[name])
    )


def _could_reach(document: Configuration, site: Site) -> bool:
    of = document.spec.of
    if of.site:
        return of.site == site.metadata.name
    return not of.selector or parse_selector(of.selector).matches(site.metadata.name, site.metadata.labels)


def _release(hub: Hub, application: str, name: str, assigned: AssignmentRecord | None) -> ReleaseRecord:
    if name:
        found = hub.store.release(name)
        if found is None or found.application != application:
            raise Missing(
                "release.missing",
                f"there is no release {name[:80]} of {application}",
                hint="skerry get releases",
            )
        return found
    if assigned is not None and (found := hub.store.release(plain_release(assigned.release))) is not None:
        return found
    newest = next((r for r in reversed(hub.store.releases()) if r.application == application), None)
    if newest is None:
        raise Missing(
            "release.missing", f"{application[:80]} has no release", hint="skerry get releases lists them"
        )
    return newest


def _issued(
    configuring: Configuring, hub: Hub, site: SiteRecord, assigned: AssignmentRecord | None, host: str
) -> Values | None:
    """Return what the site was issued, as it would be issued today; None when nothing is assigned."""
    if assigned is None:
        return None
    release = hub.store.release(assigned.release)
    documents = configuring.at(assigned.application, revision_of(assigned.release))
    if release is None or documents is None:
        return None
    there = next((one for one in hub.store.hosts(site.name) if one.name == host), None)
    known = known_of(msgspec.json.decode(site.document, type=Site), there)
    return configure(msgspec.json.decode(release.document, type=Release), documents, known).configured.values


HANDLERS: list[Any] = [list_configurations, show_configuration, remove_configuration, render_configuration]
