"""Loads what a decision about a rollout goes by: its sites and hosts as the store has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.hub.issuing import Issuer, Where
from skerry.hub.views import presence
from skerry.kit.errors import Rejected
from skerry.matching.bindings import site_lacks
from skerry.matching.selector import Selector, parse_selector
from skerry.ports.hub_store import (
    AssignmentRecord,
    HostRecord,
    HubStore,
    ReleaseRecord,
    RolloutRecord,
)
from skerry.rollout.facts import HostFact, RolloutFact, SiteFact, Verdict
from skerry.rollout.reading import read_amount, read_waves, waves_of
from skerry.rollout.stages import stage_of
from skerry.spec.api_rollout import RolloutState
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout, RolloutSpec
from skerry.spec.site import Site

Freshen = Callable[[Sequence[HostRecord]], Sequence[HostRecord]]


class Fleet(msgspec.Struct, frozen=True):
    """The sites a rollout selects, and what each of them is assigned of its application."""

    sites: list[SiteFact]
    assigned: Mapping[str, AssignmentRecord]


class FleetFacts:
    """Loads facts. Blocking."""

    def __init__(self, store: HubStore, issuer: Issuer) -> None:
        self._store = store
        self._issuer = issuer

    def load(self, record: RolloutRecord, now: datetime, fresh: Freshen) -> Fleet:
        """Return the fleet of a rollout as it is stored now; `fresh` adds to hosts when they were last there."""
        rollout = msgspec.json.decode(record.document, type=Rollout)
        selector = parse_selector(rollout.spec.sites)
        waves = [_selector_of(wave.sites) for wave in waves_of(rollout.spec)]
        release = self._store.release(record.release)
        assigned = {a.site: a for a in self._store.assignments() if a.application == record.application}
        needs = msgspec.json.decode(release.document, type=Release).application.spec.needs if release else ()
        hosts: dict[str, list[HostRecord]] = {}
        for host in fresh(self._store.hosts()):
            hosts.setdefault(host.site, []).append(host)
        taken = self._taken(record, now)
        sites: list[SiteFact] = []
        for site in self._store.sites():
            document = msgspec.json.decode(site.document, type=Site)
            labels = document.metadata.labels
            if not selector.matches(site.name, labels):
                continue
            there = hosts.get(site.name, ())
            ours = site.name in assigned and assigned[site.name].rollout == record.name
            if not ours and site_lacks(needs, document.spec.bindings, [host.name for host in there]):
                continue  # it is not for this site, as if the selector did not name it
            self._issuer.catch_up(site.name, site.generation)
            where = self._issuer.where(site.name, record.application)
            offered = where.since if where is not None and where.release == record.release else 0
            fact = SiteFact(
                name=site.name,
                hosts=_host_facts(there, record, release, offered=offered or site.generation, where=where),
                assigned=assigned[site.name].release if site.name in assigned else "",
                assigned_by=assigned[site.name].rollout if site.name in assigned else "",
                taken_by=taken.get(site.name, ""),
                reachable=any(presence(host, document, now) == "online" for host in there),
                by_hand=document.spec.reached_by == "bundle",
                waves=sum(
                    1 << n for n, of in enumerate(waves) if of is None or of.matches(site.name, labels)
                ),
                labels=labels,
            )
            reported = all(host.facts for host in there)
            if fact.assigned == record.release and (
                why := self._issuer.trouble(site.name, record.application)
            ):
                sites.append(msgspec.structs.replace(fact, hosts=(), unfit=why))
                continue
            sites.append(_placed(fact, where, record.release, reported=reported))
        return Fleet(sites, assigned)

    def _taken(self, record: RolloutRecord, now: datetime) -> dict[str, str]:
        """Return, by site, the newest rollout of the same application that was made later and has that site.

        One that is yet to begin has no site: until then the one before goes on, and halts if it has to.
        """
        taken: dict[str, str] = {}
        later = False
        for other in self._store.rollouts():
            if other.name == record.name:
                later = True
            elif later and other.application == record.application and has_begun(other, now):
                taken.update(dict.fromkeys(other.sites, other.name))
        return taken


def rollout_fact(
    record: RolloutRecord,
    *,
    blocked: str = "",
    revoked: str = "",
    verdicts: Mapping[int, Verdict] | None = None,
) -> RolloutFact:
    """Return a rollout as decisions go by it."""
    spec = msgspec.json.decode(record.document, type=Rollout).spec
    state: RolloutState = msgspec.convert(record.state, RolloutState)
    return RolloutFact(
        name=record.name,
        release=record.release,
        waves=read_waves(spec),
        state=state,
        sites=record.sites,
        progress=record.steering.waves,
        control=record.steering.control,
        halt=record.steering.halt,
        on_failure=spec.on_failure,
        failure_budget=read_amount(spec.failure_budget),
        begin_at=spec.begin_at,
        blocked=blocked,
        revoked=revoked,
        gated=bool(spec.gates),
        verdicts=verdicts or {},
    )


def has_begun(record: RolloutRecord, now: datetime) -> bool:
    """Tell whether a rollout may have offered anything yet."""
    begin_at = spec_of(record).begin_at
    return begin_at is None or begin_at <= now


def spec_of(record: RolloutRecord) -> RolloutSpec:
    """Return what a rollout says."""
    return msgspec.json.decode(record.document, type=Rollout).spec


def _selector_of(text: str) -> Selector | None:
    try:
        return parse_selector(text) if text else None
    except Rejected:
        return None  # refused when the rollout was made


def _placed(site: SiteFact, where: Where | None, release: str, *, reported: bool) -> SiteFact:
    """Return the site with those of its hosts that the release was issued to; a host it is not for does not count.

    `reported`: all hosts have told their facts. Before that, a release that fits none may still find one.
    """
    if where is None:
        return site
    placement = where.placement
    if placement is not None and not placement.hosts:
        unfit = "; ".join(placement.why) if reported and site.assigned == release else ""
        return msgspec.structs.replace(site, hosts=(), turns=placement.count, unfit=unfit)
    if where.release != release:
        return site
    hosts = tuple(host for host in site.hosts if host.name in where.hosts)
    return msgspec.structs.replace(site, hosts=hosts, turns=placement.count if placement else 0)


def _host_facts(
    hosts: Sequence[HostRecord],
    record: RolloutRecord,
    release: ReleaseRecord | None,
    *,
    offered: int,
    where: Where | None,
) -> tuple[HostFact, ...]:
    """Return what hosts say of a rollout's application; it counts from the generation on that it was `offered` in."""
    facts: list[HostFact] = []
    editions: Mapping[str, str] = {}
    if where is not None and where.release == record.release:
        editions = where.editions
    for host in hosts:
        tried = editions.get(host.name, release.digest if release else "")
        observed = host.observed
        view = observed.applications.get(record.application) if observed else None
        facts.append(
            HostFact(
                name=host.name,
                holds_offer=observed is not None and observed.generation >= offered,
                running=view.release if view else "",
                candidate=view.candidate if view else "",
                refused=view.refused.get(tried, "") if view and release else "",
                why=view.why if view else "",
                as_of=host.observed_at,
                standing_by=view is not None and view.phase == "standing-by",
                stage=stage_of(view, record.release) if view else "",
            )
        )
    return tuple(facts)
