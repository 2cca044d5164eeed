"""The rollout loop: for every running rollout, load the fleet, decide, apply with a version check."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.hub.issuing import Issuer, Where
from skerry.hub.judging import Judge
from skerry.kit.errors import Bug, Conflict, Missing, as_failure
from skerry.matching.selector import parse_selector
from skerry.ports.clock import Clock
from skerry.ports.hub_store import (
    AssignmentRecord,
    Audit,
    HostRecord,
    HubStore,
    ReleaseRecord,
    RolloutRecord,
    SiteRecord,
)
from skerry.rollout.decide import (
    Assign,
    Decision,
    HostFact,
    RolloutFact,
    SiteFact,
    decide_rollout,
    retry_rollout,
)
from skerry.spec.api import RolloutState
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site

_log = structlog.get_logger()

LOOK_EVERY_S = 30.0
REST_S = 0.2


class RolloutLoop:
    """Drives all running rollouts."""

    def __init__(self, store: HubStore, issuer: Issuer, clock: Clock, judge: Judge) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._judge = judge
        self._wake = asyncio.Event()
        self._failing = ""
        self._wake_at: datetime | None = None
        self.revoked: Callable[[ReleaseRecord], str] = lambda _: ""
        self.on_running: Callable[[Sequence[RolloutRecord]], None] = lambda _: None

    def wake(self) -> None:
        """Look again soon: something changed."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Look at every change and every half minute, for ever."""
        while True:
            self._wake.clear()
            try:
                await self.step()
            except Exception as caught:
                error = as_failure(caught)
                if self._failing != error.code:
                    cause = error.__cause__ if isinstance(error, Bug) else None
                    _log.error("rollouts.failing", code=error.code, reason=str(error), exc_info=cause)
                self._failing = error.code
                await self._clock.sleep(1.0)
                continue
            if self._failing:
                _log.info("rollouts.restored")
                self._failing = ""
            await self._clock.sleep(REST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_in_s()):
                    await self._wake.wait()

    async def step(self) -> None:
        """Place again what hosts' reports may have moved, then decide every running rollout once."""
        running = await asyncio.to_thread(self._store.rollouts, running_only=True)
        self.on_running(running)
        self._issuer.fetch_ahead(_upcoming(running))
        await self._issuer.issue_marked()
        self._wake_at = None
        for record in running:
            blocked = await self._judge.blocked(record)
            changed = await asyncio.to_thread(self._decide, record, blocked)
            for site in changed:
                await self._issuer.issue(site)

    def _look_in_s(self) -> float:
        if self._wake_at is None:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(REST_S, (self._wake_at - self._clock.now()).total_seconds()))

    async def retry(self, name: str, audit: Audit) -> RolloutRecord:
        """Try a failed rollout again, because a person says so.

        Raises:
            Missing: there is no such rollout.
            Conflict: it has not failed (`rollout.not_failed`).
        """
        record = await asyncio.to_thread(self._store.rollout, name)
        if record is None:
            raise Missing("rollout.missing", f"there is no rollout {name}")
        if record.state != "failed":
            raise Conflict("rollout.not_failed", f"rollout {name} has not failed: it is {record.state}")
        again = msgspec.structs.replace(
            record,
            state="running",
            why="to be tried again",
            ended_at=None,
            attempt=record.attempt + 1,
            sites=dict(retry_rollout(_fact(record))),
        )
        await asyncio.to_thread(self._store.advance_rollout, again, audit=audit)
        self.wake()
        return again

    def _decide(self, record: RolloutRecord, blocked: str) -> list[str]:
        """Decide one rollout and store the decision; return the sites whose desired state changes."""
        fleet, assigned = self._load_fleet(record)
        now = self._clock.now()
        release = self._store.release(record.release)
        revoked = self.revoked(release) if release else ""
        fact = msgspec.structs.replace(_fact(record, blocked), revoked=revoked)
        decision = decide_rollout(fact, fleet, now=now)
        if decision.wake_at is not None:
            self._wake_at = min(self._wake_at or decision.wake_at, decision.wake_at)
        same = (decision.state, decision.sites, decision.why) == (record.state, record.sites, record.why)
        if same and not decision.effects:
            return []
        ended = now if decision.state != "running" else None
        updated = msgspec.structs.replace(
            record, state=decision.state, why=decision.why, ended_at=ended, sites=dict(decision.sites)
        )
        assign = [
            AssignmentRecord(
                site=effect.site,
                application=record.application,
                release=effect.release,
                rollout=record.name,
                # A new assignment is a person's word: it lifts a refusal of the same release.
                attempt=(assigned[effect.site].attempt if effect.site in assigned else 0) + 1,
            )
            for effect in decision.effects
            if isinstance(effect, Assign)
        ]
        unassign = [(e.site, record.application) for e in decision.effects if not isinstance(e, Assign)]
        try:
            self._store.advance_rollout(updated, assign=assign, unassign=unassign)
        except Conflict:
            # Somebody retried or removed it meanwhile; the next look sees what is there then.
            self._wake.set()
            return []
        if decision.wake_at is not None:
            self._wake.set()  # what is fetched ahead goes by what was stored just now
        self._log_decision(record, decision)
        return [effect.site for effect in decision.effects]

    def _log_decision(self, record: RolloutRecord, decision: Decision) -> None:
        if decision.effects or decision.state != record.state:
            _log.info(
                "rollout.decided",
                rollout=record.name,
                state=decision.state,
                why=decision.why,
                effects=len(decision.effects),
            )

    def _load_fleet(self, record: RolloutRecord) -> tuple[list[SiteFact], Mapping[str, AssignmentRecord]]:
        rollout = msgspec.json.decode(record.document, type=Rollout)
        selector = parse_selector(rollout.spec.sites)
        release = self._store.release(record.release)
        assigned = {a.site: a for a in self._store.assignments() if a.application == record.application}
        hosts: dict[str, list[HostRecord]] = {}
        for host in self._store.hosts():
            hosts.setdefault(host.site, []).append(host)
        taken = self._taken(record)
        fleet = [
            _site_fact(
                SiteFact(
                    name=site.name,
                    hosts=_host_facts(site, hosts.get(site.name, ()), record, release),
                    assigned=assigned[site.name].release if site.name in assigned else "",
                    assigned_by=assigned[site.name].rollout if site.name in assigned else "",
                    taken_by=taken.get(site.name, ""),
                ),
                self._issuer.where(site.name, record.application),
                record.release,
                reported=all(host.facts for host in hosts.get(site.name, ())),
            )
            for site in self._store.sites()
            if selector.matches(site.name, msgspec.json.decode(site.document, type=Site).metadata.labels)
        ]
        return fleet, assigned

    def _taken(self, record: RolloutRecord) -> dict[str, str]:
        """Return, by site, the newest rollout of the same application that was made later and has that site.

        One that is yet to begin has no site: until then the one before goes on, and halts if it has to.
        """
        taken: dict[str, str] = {}
        later = False
        now = self._clock.now()
        for other in self._store.rollouts():
            if other.name == record.name:
                later = True
            elif later and other.application == record.application and _has_begun(other, now):
                taken.update(dict.fromkeys(other.sites, other.name))
        return taken


def _fact(record: RolloutRecord, blocked: str = "") -> RolloutFact:
    state: RolloutState = msgspec.convert(record.state, RolloutState)
    return RolloutFact(record.name, record.release, state, record.sites, _begin_at(record), blocked)


def _begin_at(record: RolloutRecord) -> datetime | None:
    return msgspec.json.decode(record.document, type=Rollout).spec.begin_at


def _has_begun(record: RolloutRecord, now: datetime) -> bool:
    begin_at = _begin_at(record)
    return begin_at is None or begin_at <= now


def _upcoming(running: Sequence[RolloutRecord]) -> dict[str, dict[str, str]]:
    """Return, by site and application, the releases that sites will get, of rollouts that want them fetched ahead."""
    upcoming: dict[str, dict[str, str]] = {}
    for record in running:
        if msgspec.json.decode(record.document, type=Rollout).spec.prefetch:
            for site, progress in record.sites.items():
                if progress.state == "pending":
                    upcoming.setdefault(site, {})[record.application] = record.release
    return upcoming


def _site_fact(site: SiteFact, where: Where | None, release: str, *, reported: bool) -> SiteFact:
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
    site: SiteRecord, hosts: Sequence[HostRecord], record: RolloutRecord, release: ReleaseRecord | None
) -> tuple[HostFact, ...]:
    facts: list[HostFact] = []
    for host in hosts:
        observed = host.observed
        view = observed.applications.get(record.application) if observed else None
        facts.append(
            HostFact(
                name=host.name,
                holds_offer=observed is not None and observed.generation >= site.generation,
                running=view.release if view else "",
                candidate=view.candidate if view else "",
                refused=view.refused.get(release.digest, "") if view and release else "",
                why=view.why if view else "",
                as_of=host.observed_at,
                standing_by=view is not None and view.phase == "standing-by",
            )
        )
    return tuple(facts)
