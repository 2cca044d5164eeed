"""Holds changed configurations, sites and new rollouts against every site that they concern, before they are stored.

Rules: what would break at any site is refused, with every site it would break; what was broken before is not held
against a change that leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from skerry.hub.configuring import Configuring, answers_of, make_revision
from skerry.kit.editions import edition_name, plain_release, revision_of
from skerry.kit.errors import Rejected
from skerry.matching.configured import Answer, Trouble
from skerry.matching.layering import Spot, leaves_of, reaches
from skerry.matching.selector import Selector, parse_selector
from skerry.ports.configurations import RevisionRecord
from skerry.ports.hub_store import HostRecord, HubStore, RolloutRecord
from skerry.rollout.decide import ENDED
from skerry.spec.api_configuration import ConfigurationEffect
from skerry.spec.configuration import Configuration
from skerry.spec.problems import Problem
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site

MAX_EFFECTS = 1000


class Found(msgspec.Struct, frozen=True):
    """What is wrong with a change, and which values it would change where."""

    problems: tuple[Problem, ...] = ()
    effects: tuple[ConfigurationEffect, ...] = ()


class Checking:
    """One look at the store: `changed` are configurations by name as they are to be, None where one is removed."""

    def __init__(
        self, store: HubStore, changed: Mapping[str, Configuration | None], sites: Sequence[Site] = ()
    ) -> None:
        self._store = store
        self._configuring = Configuring(store)
        self._changed = changed
        self._stored = {site.name: msgspec.json.decode(site.document, type=Site) for site in store.sites()}
        self._new = {site.metadata.name: site for site in sites}
        self._hosts: dict[str, list[HostRecord]] = {}
        for host in store.hosts():
            self._hosts.setdefault(host.site, []).append(host)
        self._releases: dict[str, Release | None] = {}
        self._troubles: dict[tuple[str, Trouble], list[str]] = {}
        self._effects: list[ConfigurationEffect] = []

    def documents(self, application: str) -> tuple[Configuration, ...]:
        """Return the configurations of an application as they are to be."""
        held = {one.metadata.name: one for one in self._configuring.documents(application)}
        for name, document in self._changed.items():
            held.pop(name, None)
            if document is not None and document.spec.application == application:
                held[name] = document
        return tuple(held[name] for name in sorted(held))

    def check_changes(self) -> Found:
        """Return what the changes would break and change at the sites that run what they are for, or are to."""
        problems = list(_check_selectors(one for one in self._changed.values() if one is not None))
        if problems:
            return Found(tuple(problems))
        for application in sorted(self._applications()):
            before, after = self._configuring.documents(application), self.documents(application)
            for name, release in sorted(self._running(application).items()):
                self._compare(name, release, before, after)
            self._check_elsewhere(application, before, after)
        self._check_sites()
        return Found(tuple(self._problems()), tuple(self._effects))

    def check_rollout(self, rollout: Rollout, release: Release) -> Iterator[Problem]:
        """Yield what speaks against bringing a release, with the configurations there are, to a rollout's sites."""
        for trouble, places in self.misconfigured(release, rollout.spec.sites).items():
            yield Problem(
                "spec.release", f"its configuration: {trouble}, at {', '.join(places)}", trouble.hint
            )

    def misconfigured(self, release: Release, sites: str) -> dict[Trouble, list[str]]:
        """Return what is wrong with the configuration of a release at the sites of a selector, and at which."""
        selector, found = _selector(sites), dict[Trouble, list[str]]()
        if release.application.spec.config is None or selector is None:
            return found
        documents = self.documents(release.application.metadata.name)
        for name, site in (self._stored | self._new).items():
            if selector.matches(name, site.metadata.labels):
                answers = answers_of(release, documents, site, self._hosts.get(name, ()))
                for trouble, place in _places(name, answers):
                    found.setdefault(trouble, []).append(place)
        return found

    def revision(self, release: Release | None, record: RolloutRecord) -> RevisionRecord | None:
        """Return the revision that a new rollout brings; None where there is nothing to configure, or to bring."""
        if release is None or release.application.spec.config is None:
            return None
        return make_revision(
            release.application.metadata.name,
            self.documents(release.application.metadata.name),
            record.created_at,
        )

    # ── where a change matters ───────────────────────────────────────────────────────────────────────

    def _applications(self) -> set[str]:
        named = {document.spec.application for document in self._changed.values() if document is not None}
        stored = {record.name: record.application for record in self._store.configurations()}
        return named | {stored[name] for name in self._changed if name in stored}

    def _running(self, application: str) -> dict[str, Release]:
        """Return, by site, the release that it runs or is to get from a rollout that has not ended."""
        names = {one.site: one.release for one in self._store.assignments() if one.application == application}
        for record in self._store.rollouts():
            if record.application != application or record.state in ENDED:
                continue
            selector = _selector(msgspec.json.decode(record.document, type=Rollout).spec.sites)
            for name, site in self._stored.items():
                if selector is not None and selector.matches(name, site.metadata.labels):
                    names[name] = record.release
        found = {site: self._release(name) for site, name in names.items()}
        return {site: release for site, release in found.items() if release is not None}

    def _compare(
        self, name: str, release: Release, before: Sequence[Configuration], after: Sequence[Configuration]
    ) -> None:
        site = self._stored[name]
        if release.application.spec.config is None or name in self._new:
            return
        hosts = self._hosts.get(name, ())
        old, new = answers_of(release, before, site, hosts), answers_of(release, after, site, hosts)
        self._note(release.name, name, old, new)
        for host, answer in new.items():
            self._effects += _effects(release, name, host, old[host], answer)[
                : MAX_EFFECTS - len(self._effects)
            ]

    def _check_elsewhere(
        self, application: str, before: Sequence[Configuration], after: Sequence[Configuration]
    ) -> None:
        """Hold what is changed against the schema of the newest release, at sites that have none yet."""
        newest = next((r for r in reversed(self._store.releases()) if r.application == application), None)
        release = self._release(newest.name) if newest is not None else None
        if release is None or release.application.spec.config is None:
            return
        version = release.application.spec.version
        running = self._running(application)
        changed = [one for one in after if self._changed.get(one.metadata.name) is not None]
        for name, site in (self._stored | self._new).items():
            spots = [
                Spot(name, site.metadata.labels, host)
                for host in ("", *(host.name for host in self._hosts.get(name, ())))
            ]
            if name in running or not any(
                reaches(one.spec.of, spot, version=version) for one in changed for spot in spots
            ):
                continue
            hosts = self._hosts.get(name, ())
            old, new = answers_of(release, before, site, hosts), answers_of(release, after, site, hosts)
            self._note(release.name, name, _schema_only(old), _schema_only(new))

    def _check_sites(self) -> None:
        """Hold sites as they are to be against what they are configured with now."""
        assigned = [one for one in self._store.assignments() if one.site in self._new] if self._new else []
        for one in assigned:
            release = self._release(one.release)
            documents = self._configuring.at(one.application, revision_of(one.release))
            if release is None or documents is None or release.application.spec.config is None:
                continue
            hosts = self._hosts.get(one.site, ())
            old = answers_of(release, documents, self._stored[one.site], hosts)
            new = answers_of(release, documents, self._new[one.site], hosts)
            self._note(release.name, one.site, old, new, of_site=True)

    def _release(self, name: str) -> Release | None:
        name = plain_release(name)
        if name not in self._releases:
            record = self._store.release(name)
            self._releases[name] = msgspec.json.decode(record.document, type=Release) if record else None
        return self._releases[name]

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────

    def _note(
        self,
        release: str,
        site: str,
        before: Mapping[str, Answer],
        after: Mapping[str, Answer],
        *,
        of_site: bool = False,
    ) -> None:
        known = {(trouble, place) for trouble, place in _places(site, before)}
        for trouble, place in _places(site, after):
            if (trouble, place) not in known:
                key = f"Site {site}: spec" if of_site else release
                self._troubles.setdefault((key, trouble), []).append(place)

    def _problems(self) -> Iterator[Problem]:
        for (key, trouble), places in self._troubles.items():
            sites = ", ".join(sorted(places))
            if key.startswith("Site "):
                yield Problem(key, f"would break a configuration: {trouble}", trouble.hint)
                continue
            source = trouble.source if trouble.source in self._changed else next(iter(self._changed), "")
            path = f"spec.values.{trouble.path}" if trouble.source == source and trouble.path else "spec"
            message = trouble.message if trouble.source == source else str(trouble)
            yield Problem(
                f"Configuration {source}: {path}", f"{message} (with {key}), at {sites}", trouble.hint
            )


def pinned(record: RolloutRecord, revision: RevisionRecord | None) -> RolloutRecord:
    """Return a rollout that brings its release at a revision."""
    named = edition_name(record.release, revision.revision if revision else "")
    return msgspec.structs.replace(record, release=named)


def _check_selectors(documents: Iterable[Configuration]) -> Iterator[Problem]:
    for document in documents:
        if document.spec.of.selector and _selector(document.spec.of.selector) is None:
            hint = "write region=north, tier!=test, line in (a,b), canary, !canary"
            yield Problem(
                f"Configuration {document.metadata.name}: spec.of.selector",
                f"not a selector: {document.spec.of.selector[:200]!r}",
                hint,
            )


def _places(site: str, answers: Mapping[str, Answer]) -> Iterator[tuple[Trouble, str]]:
    """Yield each trouble with where it is: the site when all its hosts have it, else the hosts, and what is theirs."""
    by_trouble: dict[Trouble, list[str]] = {}
    for host, answer in answers.items():
        for trouble in answer.troubles:
            by_trouble.setdefault(trouble, []).append(host)
    for trouble, hosts in by_trouble.items():
        if len(hosts) == len(answers) and not (all(hosts) and "${host." in trouble.message):
            yield trouble, site
        else:
            yield from ((trouble, f"{host} of {site}") for host in hosts)


def _schema_only(answers: Mapping[str, Answer]) -> dict[str, Answer]:
    return {
        host: msgspec.structs.replace(
            answer, troubles=tuple(trouble for trouble in answer.troubles if trouble.of_schema)
        )
        for host, answer in answers.items()
    }


def _effects(
    release: Release, site: str, host: str, before: Answer, after: Answer
) -> list[ConfigurationEffect]:
    old, new = leaves(before), leaves(after)
    return [
        ConfigurationEffect(
            application=release.application.metadata.name,
            site=site,
            host=host,
            path=path,
            before=old.get(path),
            after=new.get(path),
        )
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def leaves(answer: Answer) -> dict[str, object]:
    """Return each value of an answer that is no map, by its path."""
    return dict(leaves_of(answer.configured.values))


def _selector(text: str) -> Selector | None:
    try:
        return parse_selector(text)
    except Rejected:
        return None  # told elsewhere
