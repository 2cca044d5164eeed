"""Makes views for people from the hub's records. Instants come in as arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.hub.recovering import Running
from skerry.kit.quantities import parse_duration
from skerry.ports.deciding import DecisionRecord
from skerry.ports.host_identities import LineageRecord
from skerry.ports.hub_store import (
    AssignmentRecord,
    HostRecord,
    RecoveryRecord,
    ReleaseRecord,
    RolloutRecord,
    SiteRecord,
    TokenRecord,
)
from skerry.ports.policies import PolicyRecord
from skerry.spec.api import (
    AppView,
    HostView,
    JsonDocument,
    ModelView,
    Presence,
    ReleaseView,
    RolloutView,
    SiteView,
    TokenView,
)
from skerry.spec.api_health import HealthView
from skerry.spec.api_identity import QuarantineView
from skerry.spec.api_policy import PolicyView
from skerry.spec.api_recovery import HeldView
from skerry.spec.api_rollout import DecisionView, RolloutState
from skerry.spec.policy import Policy
from skerry.spec.publishing import Revocation
from skerry.spec.release import Release
from skerry.spec.site import Site


def view_site(
    site: SiteRecord,
    hosts: Sequence[HostRecord],
    assignments: Iterable[AssignmentRecord],
    now: datetime,
    *,
    held: HeldView | None = None,
    health: HealthView | None = None,
) -> SiteView:
    """Return a site with what its hosts and assignments say."""
    document = msgspec.json.decode(site.document, type=Site)
    seen = [host.last_seen_at for host in hosts if host.last_seen_at]
    presences = [presence(host, document, now) for host in hosts]
    online = presences.count("online")
    return SiteView(
        name=site.name,
        labels=dict(document.metadata.labels),
        document=as_json(site.document),
        generation=site.generation,
        hosts=len(hosts),
        hosts_online=online,
        last_seen_at=max(seen, default=None),
        presence="online" if online else "silent" if seen else "never",
        assignments={a.application: a.release for a in assignments},
        held=held,
        health=health,
    )


def view_held(record: RecoveryRecord, running: Running) -> HeldView:
    """Return why a held site is held, and what runs there."""
    assert record.held_since is not None
    return HeldView(
        since=record.held_since,
        host=record.host,
        generation_seen=record.seen,
        generation_known=record.known,
        running=running.releases,
        unknown=running.unknown,
        untold=running.untold,
    )


def view_host(
    host: HostRecord, site: SiteRecord, now: datetime, *, quarantine: LineageRecord | None = None
) -> HostView:
    """Return a host with the age of what it says."""
    observed = host.observed
    since = quarantine.quarantined_at if quarantine is not None else None
    return HostView(
        name=host.name,
        site=host.site,
        enrolled_at=host.enrolled_at,
        last_seen_at=host.last_seen_at,
        presence=presence(host, msgspec.json.decode(site.document, type=Site), now),
        sequence=host.sequence,
        generation_held=host.generation_held,
        generation_wanted=site.generation,
        clock_offset_s=host.clock_offset_s,
        observed_at=host.observed_at,
        applications=dict(observed.applications) if observed else {},
        ahead=dict(observed.ahead) if observed else {},
        metadata=observed.metadata if observed else None,
        holds=observed.holds if observed else (),
        secrets=dict(observed.secrets) if observed else {},
        bindings=dict(observed.bindings) if observed else {},
        facts=host.facts,
        quarantined=QuarantineView(since=since, why=quarantine.why) if quarantine and since else None,
    )


def presence(host: HostRecord, site: Site, now: datetime) -> Presence:
    """Return whether a host was heard of within its site's tolerance."""
    if host.last_seen_at is None:
        return "never"
    tolerance = timedelta(seconds=parse_duration(site.spec.offline_tolerance))
    return "online" if now - host.last_seen_at <= tolerance else "silent"


def view_release(
    record: ReleaseRecord, revoked: Revocation | None = None, *, whole: bool = False
) -> ReleaseView:
    """Return a release; `whole` with its document."""
    release = msgspec.json.decode(record.document, type=Release)
    return ReleaseView(
        name=record.name,
        application=record.application,
        version=record.version,
        digest=record.digest,
        models={model.metadata.name: model.spec.version for model in release.models},
        size_bytes=record.size_bytes,
        created_at=record.created_at,
        created_by=record.created_by,
        publisher=record.publisher,
        revoked=revoked,
        evidence=record.evidence,
        document=as_json(record.document) if whole else None,
    )


def view_rollout(record: RolloutRecord) -> RolloutView:
    """Return a rollout with where its sites are."""
    return RolloutView(
        name=record.name,
        document=as_json(record.document),
        release=record.release,
        state=msgspec.convert(record.state, RolloutState),
        why=record.why,
        created_at=record.created_at,
        created_by=record.created_by,
        ended_at=record.ended_at,
        sites=record.sites,
        waves=record.steering.waves,
        control=record.steering.control,
        halt=record.steering.halt,
        attempt=record.attempt,
        override=record.override,
    )


def view_decision(record: DecisionRecord) -> DecisionView:
    """Return what was decided."""
    return DecisionView(
        number=record.number,
        at=record.at,
        state=msgspec.convert(record.state, RolloutState),
        why=record.why,
        inputs=record.inputs,
        effects=record.effects,
    )


def view_policy(record: PolicyRecord) -> PolicyView:
    """Return a policy as it was written."""
    spec = msgspec.json.decode(record.document, type=Policy).spec
    return PolicyView(
        name=record.name,
        document=as_json(record.document),
        applications=spec.applications,
        require=spec.require,
        enforce=spec.enforce,
        changed_at=record.changed_at,
        changed_by=record.changed_by,
    )


def view_token(record: TokenRecord) -> TokenView:
    """Return an API token without its hash."""
    return TokenView(
        id=record.id,
        name=record.name,
        role=record.role,
        sites=record.sites,
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
    )


def view_applications(releases: Sequence[ReleaseRecord], hosts: Sequence[HostRecord]) -> list[AppView]:
    """Return every application with its releases and on how many hosts each of them runs."""
    running: dict[str, Counter[str]] = {}
    for host in hosts:
        for name, view in (host.observed.applications if host.observed else {}).items():
            if view.release:
                running.setdefault(name, Counter())[view.release] += 1
    names: dict[str, list[str]] = {}
    for release in releases:
        names.setdefault(release.application, []).append(release.name)
    return [
        AppView(name=name, releases=tuple(names.get(name, ())), running=dict(running.get(name, {})))
        for name in sorted({*names, *running})
    ]


def view_models(releases: Sequence[ReleaseRecord], hosts: Sequence[HostRecord]) -> list[ModelView]:
    """Return every model's version with its variants and on how many hosts each of them runs."""
    variants: dict[tuple[str, str], dict[str, None]] = {}
    carried: dict[tuple[str, str], list[str]] = {}
    for record in releases:
        for model in msgspec.json.decode(record.document, type=Release).models:
            key = (model.metadata.name, model.spec.version)
            variants.setdefault(key, {}).update((variant.name, None) for variant in model.spec.variants)
            carried.setdefault(key, []).append(record.name)
    running = _running_variants(hosts)
    return [
        ModelView(
            name=name,
            version=version,
            variants=tuple(variants[name, version]),
            releases=tuple(carried[name, version]),
            running=running.get((name, version), {}),
        )
        for name, version in sorted(variants)
    ]


def as_json(document: bytes) -> JsonDocument:
    """Return stored canonical JSON as a mapping."""
    return msgspec.json.decode(document, type=JsonDocument)


def _running_variants(hosts: Sequence[HostRecord]) -> Mapping[tuple[str, str], dict[str, int]]:
    running: dict[tuple[str, str], dict[str, int]] = {}
    for host in hosts:
        for view in (host.observed.applications if host.observed else {}).values():
            for choice in view.choices:
                counts = running.setdefault((choice.model, choice.version), {})
                counts[choice.variant] = counts.get(choice.variant, 0) + 1
    return running
