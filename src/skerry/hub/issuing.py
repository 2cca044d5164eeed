"""Issues a site's DesiredState: gathers what it shall be, signs it under the next generation, wakes its hosts."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from datetime import datetime, timedelta

import msgspec
import structlog

from skerry.hub.notifier import Notifier
from skerry.kit.errors import Conflict
from skerry.kit.quantities import parse_duration
from skerry.ports.clock import Clock
from skerry.ports.hub_store import AssignmentRecord, HubStore
from skerry.spec.carrier import JsonEnvelope
from skerry.spec.desired import DESIRED_STATE_TYPE, Assignment, DesiredState, HealthPolicy, ReleaseRef
from skerry.spec.rollout import Rollout
from skerry.spec.site import Site
from skerry.trust.envelope import sign_document
from skerry.trust.keys import SigningKey

_log = structlog.get_logger()

VALID_FOR = timedelta(days=60)
RENEW_BEFORE = timedelta(days=30)


class Issued(msgspec.Struct, frozen=True):
    """The newest DesiredState of a site; generation 0 before the first."""

    generation: int = 0
    envelope: JsonEnvelope | None = None
    expires_at: datetime | None = None


class Issuer:
    """Keeps every site's newest DesiredState at hand and makes new ones."""

    def __init__(self, store: HubStore, key: SigningKey, clock: Clock, notifier: Notifier) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._notifier = notifier
        self._issued: dict[str, Issued] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def issued(self, site: str) -> Issued:
        """Return the newest DesiredState of a site."""
        held = self._issued.get(site)
        if held is None:
            held = await asyncio.to_thread(self._load, site)
            self._issued.setdefault(site, held)
            held = self._issued[site]
        return held

    async def issue(self, site: str) -> bool:
        """Issue a new DesiredState if what the site shall be has changed, or the held one ages; tell whether it did."""
        async with self._locks[site]:
            held = await self.issued(site)
            made = await asyncio.to_thread(self._make, site, held)
            if made is None:
                return False
            self._issued[site] = made
        _log.info("desired.issued", site=site, generation=made.generation)
        self._notifier.notify(site)
        return True

    async def renew_all(self) -> None:
        """Issue anew whatever expires before long; run now and then."""
        for site in await asyncio.to_thread(self._store.sites):
            held = await self.issued(site.name)
            if held.expires_at is not None and held.expires_at - self._clock.now() < RENEW_BEFORE:
                await self.issue(site.name)

    def forget(self, site: str) -> None:
        """Drop what is at hand of a removed site."""
        self._issued.pop(site, None)
        self._notifier.notify(site)

    def _load(self, site: str) -> Issued:
        record = self._store.site(site)
        if record is None or record.desired is None:
            return Issued(record.generation if record else 0)
        envelope = msgspec.json.decode(record.desired, type=JsonEnvelope)
        return Issued(record.generation, envelope, record.desired_expires_at)

    def _make(self, site: str, held: Issued) -> Issued | None:
        record = self._store.site(site)
        if record is None:
            return None
        now = self._clock.now()
        desired = self._gather(site, record.document, held.generation + 1, now)
        if held.envelope is not None:
            # Our own signature, just loaded from our own database: the payload is compared, not trusted.
            before = _payload(held.envelope)
            ageing = held.expires_at is None or held.expires_at - now < RENEW_BEFORE
            if not ageing and _same(before, desired):
                return None
        elif not desired.hosts:
            return None
        envelope = sign_document(desired, DESIRED_STATE_TYPE, self._key)
        try:
            self._store.issue_desired(
                site, desired.generation, msgspec.json.encode(envelope), desired.expires_at
            )
        except Conflict:
            self._issued.pop(site, None)
            raise
        return Issued(desired.generation, envelope, desired.expires_at)

    def _gather(self, site: str, document: bytes, generation: int, now: datetime) -> DesiredState:
        assignments: list[Assignment] = []
        releases: dict[str, ReleaseRef] = {}
        for record in self._store.assignments(site):
            release = self._store.release(record.release)
            if release is None:
                continue
            releases[release.name] = ReleaseRef(digest=release.digest, size_bytes=len(release.document))
            assignments.append(
                Assignment(
                    application=record.application,
                    release=record.release,
                    rollout=record.rollout,
                    attempt=record.attempt,
                    health=self._health(record),
                )
            )
        hosts = {host.name: tuple(assignments) for host in self._store.hosts(site)}
        return DesiredState(
            site=site,
            generation=generation,
            issued_at=now,
            expires_at=now + VALID_FOR,
            hosts=hosts,
            releases=releases,
            variables=dict(msgspec.json.decode(document, type=Site).spec.variables),
        )

    def _health(self, record: AssignmentRecord) -> HealthPolicy:
        rollout = self._store.rollout(record.rollout)
        if rollout is None:
            return HealthPolicy()
        gate = msgspec.json.decode(rollout.document, type=Rollout).spec.health
        return HealthPolicy(deadline_s=parse_duration(gate.deadline), soak_s=parse_duration(gate.soak))


def _payload(envelope: JsonEnvelope) -> DesiredState:
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=DesiredState)


def _same(before: DesiredState, after: DesiredState) -> bool:
    return (before.hosts, before.releases, before.variables) == (after.hosts, after.releases, after.variables)
