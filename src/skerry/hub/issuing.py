"""Issues a site's DesiredState: gathers what it shall be, signs it under the next generation, wakes its hosts.

What hosts report about themselves counts only through where applications are placed (`skerry.hub.placing`): a
change that leaves all of them in their places issues nothing.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from skerry.carrier.notifier import Notifier
from skerry.delivery.budget import site_policy
from skerry.hub.placing import SiteWork, place_work, restricts
from skerry.hub.recovering import Recovering
from skerry.hub.site_use import Addition, SiteUse
from skerry.kit.editions import edition_of, plain_release
from skerry.kit.errors import Conflict, Missing
from skerry.kit.quantities import parse_duration
from skerry.ports.clock import Clock
from skerry.ports.hub_store import HubStore, ReleaseRecord, RolloutRecord, SiteRecord
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import (
    DESIRED_STATE_TYPE,
    Assignment,
    DesiredState,
    HealthPolicy,
    ReleaseRef,
    SitePlacement,
    Upcoming,
)
from skerry.spec.gates import GateSpec
from skerry.spec.release import Release
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey
from skerry.trust.report import claimed_key

_log = structlog.get_logger()

VALID_FOR = timedelta(days=60)
RENEW_BEFORE = timedelta(days=30)
_EPOCH = datetime.fromtimestamp(0, UTC)


class Where(msgspec.Struct, frozen=True):
    """Where an application of a site was issued to: its release and hosts, and its placement if it has one.

    `since` is the generation that first had it; 0 when only the newest is known to. `editions` are what hosts tell it
    by (`skerry.kit.editions`).
    """

    release: str
    hosts: frozenset[str]
    placement: SitePlacement | None = None
    since: int = 0
    editions: Mapping[str, str] = {}


class Issued(msgspec.Struct, frozen=True):
    """The newest DesiredState of a site; generation 0 before the first. `where` is by application."""

    generation: int = 0
    envelope: JsonEnvelope | None = None
    expires_at: datetime | None = None
    where: Mapping[str, Where] = {}


class _Assigned(msgspec.Struct):
    """What a site is assigned, by application, its releases by name, and the newest metadata that speaks of them."""

    assignments: dict[str, Assignment] = msgspec.field(default_factory=dict[str, Assignment])
    documents: dict[str, Release] = msgspec.field(default_factory=dict[str, Release])
    refs: dict[str, ReleaseRef] = msgspec.field(default_factory=dict[str, ReleaseRef])
    snapshot: int = 0


class Issuer:
    """Keeps every site's newest DesiredState at hand and makes new ones."""

    def __init__(self, store: HubStore, key: SigningKey, clock: Clock, notifier: Notifier) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._notifier = notifier
        self._issued: dict[str, Issued] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._marked: set[str] = set()
        self._upcoming: Mapping[str, Mapping[str, str]] = {}
        self.recovering = Recovering(store, clock)
        self.on_issued: Callable[[str], None] = lambda _: None
        self.additions: list[Addition] = []
        self._troubles: dict[str, Mapping[str, str]] = {}
        self._immovable: set[str] = set()  # sites where nothing depends on what hosts report of themselves

    async def issued(self, site: str) -> Issued:
        """Return the newest DesiredState of a site."""
        held = self._issued.get(site)
        if held is None:
            held = await asyncio.to_thread(self._load, site)
            self._issued.setdefault(site, held)
            held = self._issued[site]
        return held

    async def desired(self, site: str) -> DesiredState:
        """Return what the newest DesiredState of a site says.

        Raises:
            Missing: none was issued yet (`site.not_issued`).
        """
        envelope = (await self.issued(site)).envelope
        if envelope is None:
            raise Missing("site.not_issued", f"site {site} has no hosts yet")
        return _payload(envelope)

    async def issue(self, site: str) -> bool:
        """Issue a new DesiredState if what the site shall be has changed, or the held one ages; tell whether it did."""
        async with self._locks[site]:
            try:
                made = await asyncio.to_thread(self._make, site, await self.issued(site))
            except Conflict:  # another replica has issued meanwhile: what is stored may be what is wanted
                made = await asyncio.to_thread(self._make, site, await self.issued(site))
            if made is None:
                return False
            self._issued[site] = made
        _log.info("desired.issued", site=site, generation=made.generation)
        self._notifier.notify(site)
        self.on_issued(site)
        return True

    def mark(self, site: str) -> None:
        """Note that a host of the site says something new that may matter to where applications are placed."""
        if site not in self._immovable:
            self.mark_site(site)

    def mark_site(self, site: str) -> None:
        """Note that a site has to be looked at again."""
        self._marked.add(site)

    def fetch_ahead(self, upcoming: Mapping[str, Mapping[str, str]]) -> None:
        """Note which releases sites will get, by site and application; changes are issued with the marked."""
        before, self._upcoming = self._upcoming, upcoming
        self._marked.update(
            site for site in before.keys() | upcoming.keys() if before.get(site) != upcoming.get(site)
        )

    async def mark_all(self) -> None:
        """Look at every site once more: a hub that was ended in between has stored a change, and not issued it."""
        self._marked.update(site.name for site in await asyncio.to_thread(self._store.sites))

    async def mark_releases(self, releases: frozenset[str]) -> None:
        """Note that something else is signed of these releases: sites that are assigned one have to hear of it."""
        if releases:
            assigned = await asyncio.to_thread(self._store.assignments)
            self._marked.update(one.site for one in assigned if plain_release(one.release) in releases)

    async def issue_marked(self) -> None:
        """Look at the marked sites again; what an earlier call did not get to is still marked."""
        while self._marked:
            site = self._marked.pop()
            try:
                await self.issue(site)
            except BaseException:
                self._marked.add(site)
                raise

    def where(self, site: str, application: str) -> Where | None:
        """Return where an application was issued to, None when it was not. Usable from any thread."""
        held = self._issued.get(site)
        if held is None:
            held = self._issued.setdefault(site, self._load(site))
        if self.recovering.held(site):
            # Nobody there is asked to do anything, so no rollout may conclude anything from what they do.
            return Where("", frozenset(), SitePlacement(count=1, hosts=()))
        return held.where.get(application)

    def trouble(self, site: str, application: str) -> str:
        """Return why an application was held back when its site was last looked at; empty when it was not."""
        return self._troubles.get(site, {}).get(application, "")

    def catch_up(self, site: str, generation: int) -> bool:
        """Drop what is at hand of a site if another replica has issued a later one; tell whether. For any thread."""
        held = self._issued.get(site)
        if held is None or held.generation >= generation:
            return False
        self._issued.pop(site, None)
        return True

    async def follow_others(self) -> None:
        """Find out what other replicas have issued, and wake who waits here for it."""
        for site in await asyncio.to_thread(self._store.sites):
            if self.catch_up(site.name, site.generation):
                self._notifier.notify(site.name)

    async def renew_all(self) -> None:
        """Issue anew whatever expires before long; run now and then."""
        for site in await asyncio.to_thread(self._store.sites):
            held = await self.issued(site.name)
            if held.expires_at is not None and held.expires_at - self._clock.now() < RENEW_BEFORE:
                await self.issue(site.name)

    def forget(self, site: str) -> None:
        """Drop what is at hand of a removed site."""
        self._issued.pop(site, None)
        self._immovable.discard(site)
        self.recovering.forget(site)
        self._notifier.notify(site)

    def _load(self, site: str) -> Issued:
        record = self._store.site(site)
        if record is None or record.desired is None:
            return Issued(record.generation if record else 0)
        envelope = msgspec.json.decode(record.desired, type=JsonEnvelope)
        # Our own signature, loaded from our own database: the payload is read, not trusted.
        return Issued(record.generation, envelope, record.desired_expires_at, _where(_payload(envelope)))

    def _make(self, site: str, held: Issued) -> Issued | None:
        record = self._store.site(site)
        if record is None or self.recovering.held(site):
            return None
        now = self._clock.now()
        before = _payload(held.envelope) if held.envelope is not None else None
        decided = self.recovering.must_issue(site, held.generation)
        generation = self.recovering.next_generation(site, held.generation)
        desired = self._gather(record, generation, now, before)
        if before is not None and held.envelope is not None and not decided:
            ageing = held.expires_at is None or held.expires_at - now < RENEW_BEFORE
            # A bundle lasts as long as it is carried. Another generation would make what its hosts report outdated.
            ageing = ageing and not _by_hand(record)
            # Hosts believe the keys of the newest root alone.
            ageing = ageing or claimed_key(held.envelope) != self._key.key_id
            if not ageing and _same(before, desired):
                return None
        elif not desired.hosts:
            return None
        envelope = sign_document(desired, DESIRED_STATE_TYPE, self._key)
        try:
            self._store.issue_desired(
                site,
                desired.generation,
                msgspec.json.encode(envelope),
                desired.expires_at,
                after=held.generation,
            )
        except Conflict:
            self._issued.pop(site, None)
            raise
        return Issued(desired.generation, envelope, desired.expires_at, _where(desired))

    def _gather(
        self, record: SiteRecord, generation: int, now: datetime, before: DesiredState | None
    ) -> DesiredState:
        site = msgspec.json.decode(record.document, type=Site)
        hosts = tuple(self._store.hosts(record.name))
        assigned = self._assigned(record.name, len(hosts))
        assignments, documents, refs = assigned.assignments, assigned.documents, assigned.refs
        if site.spec.reached_by == "bundle":
            assignments = _with_since(assignments, before, generation)
        policy = site_policy(site.spec, hosts=len(hosts))
        work = SiteWork(
            releases=documents, hosts=hosts, policy=policy, before=before, bindings=site.spec.bindings
        )
        placed = place_work(work)
        # Hosts that have neighbours are told where those are.
        moves = len(hosts) > 1 or any(
            restricts(release) or release.application.spec.config is not None
            for release in documents.values()
        )
        (self._immovable.discard if moves else self._immovable.add)(record.name)
        upcoming = self._ahead(record.name, placed.applications, refs)
        applications = placed.applications
        use = SiteUse(site=record, hosts=hosts, applications=applications, releases=documents, before=before)
        desired = DesiredState(
            site=record.name,
            generation=generation,
            issued_at=now,
            expires_at=now + VALID_FOR,
            hosts={
                host: tuple(assignments[name] for name in sorted(names))
                for host, names in placed.applications.items()
            },
            releases=refs,
            variables=dict(site.spec.variables),
            placements=placed.placements,
            neighbours=placed.neighbours,
            policy=policy,
            upcoming=upcoming,
            snapshot=assigned.snapshot,
            bindings=site.spec.bindings,
        )
        for add in self.additions:
            desired = add(use, desired)
        self._troubles[record.name] = use.troubles
        return desired

    def _assigned(self, site: str, hosts: int) -> _Assigned:
        """Return what the rollouts have assigned to a site of so many hosts."""
        found = _Assigned()
        wipes = self._store.wipes(site)
        for assigned in self._store.assignments(site):
            release = self._store.release(assigned.release)
            if release is None:
                continue
            stored = self._store.rollout(assigned.rollout)
            rollout = msgspec.json.decode(stored.document, type=Rollout) if stored else None
            found.refs[assigned.release] = _ref(release)
            found.snapshot = max(found.snapshot, release.vouched_at)
            found.documents[assigned.application] = msgspec.json.decode(release.document, type=Release)
            found.assignments[assigned.application] = Assignment(
                application=assigned.application,
                release=assigned.release,
                rollout=assigned.rollout,
                attempt=assigned.attempt,
                wipe=wipes.get(assigned.application, 0),
                health=_health(rollout),
                urgent=rollout is not None and rollout.spec.urgent,
                gates=_gates(rollout, stored, assigned.release),
                judges=_judges(rollout, stored, assigned.release, hosts),
            )
        return found

    def _ahead(
        self, site: str, applications: Mapping[str, list[str]], refs: dict[str, ReleaseRef]
    ) -> dict[str, tuple[Upcoming, ...]]:
        """Return what each host may fetch ahead, and name those releases in `refs`.

        A host that has the application will get its next release. Where nobody has it yet, all hosts fetch one that
        may go to every host; who gets any other is not known before it is assigned.
        """
        upcoming: dict[str, list[Upcoming]] = {}
        for application, name in sorted(self._upcoming.get(site, {}).items()):
            record = self._store.release(name)
            if record is None or name in refs:  # what is assigned by now is fetched anyway
                continue
            hosts = [host for host, names in applications.items() if application in names]
            if not hosts and not restricts(msgspec.json.decode(record.document, type=Release)):
                hosts = list(applications)
            for host in hosts:
                upcoming.setdefault(host, []).append(Upcoming(application=application, release=name))
            if hosts:
                refs[name] = _ref(record)
        return {host: tuple(found) for host, found in upcoming.items()}


def _with_since(
    assignments: Mapping[str, Assignment], before: DesiredState | None, generation: int
) -> dict[str, Assignment]:
    """Note which generation brought each offer first: what comes back by hand is of an older one than the newest."""
    held = {one.application: one for host in (before.hosts.values() if before else ()) for one in host}
    since = {
        name: held[name].since
        if name in held and (held[name].release, held[name].attempt) == (one.release, one.attempt)
        else generation
        for name, one in assignments.items()
    }
    return {
        name: msgspec.structs.replace(one, since=since[name] or generation)
        for name, one in assignments.items()
    }


def _by_hand(record: SiteRecord) -> bool:
    return msgspec.json.decode(record.document, type=Site).spec.reached_by == "bundle"


def _ref(release: ReleaseRecord) -> ReleaseRef:
    return ReleaseRef(digest=release.digest, size_bytes=len(release.document), publisher=release.publisher)


def _health(rollout: Rollout | None) -> HealthPolicy:
    if rollout is None:
        return HealthPolicy()
    gate = rollout.spec.health
    return HealthPolicy(deadline_s=parse_duration(gate.deadline), soak_s=parse_duration(gate.soak))


def _gates(rollout: Rollout | None, stored: RolloutRecord | None, release: str) -> tuple[GateSpec, ...]:
    """Return the gates of the edition that a rollout brings; one that it goes back to is not judged."""
    return (
        rollout.spec.gates if rollout is not None and stored is not None and stored.release == release else ()
    )


def _judges(rollout: Rollout | None, stored: RolloutRecord | None, release: str, hosts: int) -> int:
    """Return about how many hosts judge a release, each for itself: a power of two, so that it seldom changes."""
    if not _gates(rollout, stored, release):
        return 1
    sites = len(stored.sites) if stored is not None else 1
    return 1 << (max(1, sites) * max(1, hosts) - 1).bit_length()


def _payload(envelope: JsonEnvelope) -> DesiredState:
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)


def _same(before: DesiredState, after: DesiredState) -> bool:
    return _content(before) == _content(after)


def _content(desired: DesiredState) -> DesiredState:
    """Return what hosts act on; why something is placed where it is may change without a new generation.

    Why it is placed nowhere is all there is to say of it, and a rollout shows it.
    """
    placements = {
        name: msgspec.structs.replace(placement, why=()) if placement.hosts else placement
        for name, placement in desired.placements.items()
    }
    return msgspec.structs.replace(
        desired, generation=1, issued_at=_EPOCH, expires_at=_EPOCH, placements=placements
    )


def _where(desired: DesiredState) -> dict[str, Where]:
    hosts: dict[str, set[str]] = {name: set() for name in desired.placements}
    releases: dict[str, str] = {}
    since: dict[str, int] = {}
    editions: dict[str, dict[str, str]] = {}
    for host, assignments in desired.hosts.items():
        for assignment in assignments:
            hosts.setdefault(assignment.application, set()).add(host)
            releases[assignment.application] = assignment.release
            since[assignment.application] = assignment.since
            if (ref := desired.releases.get(assignment.release)) is not None:
                edition = edition_of(ref.digest, assignment.configuration or "")
                editions.setdefault(assignment.application, {})[host] = edition
    return {
        name: Where(
            releases.get(name, ""),
            frozenset(names),
            desired.placements.get(name),
            since.get(name, 0),
            editions.get(name, {}),
        )
        for name, names in hosts.items()
    }
