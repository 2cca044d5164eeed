"""HubStore: what the hub remembers. Synchronous; call it in a thread.

Every method is one transaction: when it returns, its effect is durable; when it raises, nothing has changed.
Records are stored values; views for people are made from them elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.audit_log import AuditLog
from skerry.ports.audit_log import AuditRecord as AuditRecord  # noqa: PLC0414 - part of this port as well
from skerry.ports.audit_log import EventRecord as EventRecord  # noqa: PLC0414 - part of this port as well
from skerry.ports.authorities import Authorities
from skerry.ports.configurations import ConfigurationChanges, Configurations
from skerry.ports.deciding import Deciding, Turn
from skerry.ports.downlink_store import DownlinkStore
from skerry.ports.host_identities import Audit as Audit  # noqa: PLC0414 - part of this port as well
from skerry.ports.host_identities import HostIdentities
from skerry.ports.metric_windows import MetricWindows
from skerry.ports.policies import Policies, PolicyRecord
from skerry.ports.presence import Presences
from skerry.ports.question_store import QuestionStore
from skerry.ports.relay_records import RelayRecords
from skerry.ports.secrets import Secrets
from skerry.ports.sink_store import SinkRecord, SinkStore
from skerry.ports.telemetry_store import TelemetryStore
from skerry.ports.topic_store import TopicStore
from skerry.spec.api import Role
from skerry.spec.api_rollout import SiteProgress, Steering
from skerry.spec.backup import RestoreMark
from skerry.spec.evidence import Evidence
from skerry.spec.facts import HostFacts
from skerry.spec.overriding import Override
from skerry.spec.report import Event, Observed


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An API token by the SHA-256 of its secret. A one-time token is consumed by login.

    `sites` is the selector of the sites that it is limited to; empty when it is for all.
    """

    id: str
    name: str
    hash: str
    role: Role
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    once: bool = False
    sites: str = ""


class JoinTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A join token by the SHA-256 of its secret. One that `replaces` a host is for that host's name alone."""

    hash: str
    site: str
    created_at: datetime
    expires_at: datetime
    uses_left: int
    replaces: str = ""


class SiteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A site: its document (canonical JSON) and the signed DesiredState it was last issued."""

    name: str
    document: bytes
    generation: int = 0
    desired: bytes | None = None
    desired_expires_at: datetime | None = None


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A host, its public keys (base64) and what it last reported."""

    name: str
    site: str
    sign_key: str
    seal_key: str
    enrolled_at: datetime
    last_seen_at: datetime | None = None
    sequence: int = 0
    generation_held: int = 0
    clock_offset_s: float | None = None
    observed: Observed | None = None
    observed_at: datetime | None = None
    facts: HostFacts = {}


class ReleaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A release; `document` is the exact bytes whose SHA-256 is `digest`. `size_bytes` counts its files.

    `publisher` signed it; empty for one of a time without publishers. What is signed of it changed last with the
    snapshot of version `vouched_at`.
    """

    name: str
    application: str
    version: str
    digest: str
    document: bytes
    size_bytes: int
    created_at: datetime
    created_by: str
    publisher: str = ""
    vouched_at: int = 0
    evidence: tuple[Evidence, ...] = ()


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What is published in one step: roles' metadata (version and bytes), the snapshot and timestamp among them.

    It follows on the snapshot of version `after`. `vouched` has releases of which something else is signed from now
    on, with the snapshot's version.
    """

    roles: Mapping[str, tuple[int, bytes]]
    after: int
    release: ReleaseRecord | None = None
    vouched: Mapping[str, int] = {}


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout: its document and where it is. `version` rises with each change (optimistic locking).

    `override` is an admin's word with which it began in spite of policies; it never changes.
    """

    name: str
    document: bytes
    release: str
    application: str
    created_at: datetime
    created_by: str
    state: str = "running"
    why: str = ""
    ended_at: datetime | None = None
    sites: dict[str, SiteProgress] = {}
    attempt: int = 1
    version: int = 0
    steering: Steering = Steering()
    override: Override | None = None


class AssignmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a site shall run of one application. `previous` is where a failed rollout goes back to."""

    site: str
    application: str
    release: str
    rollout: str
    attempt: int = 1


class DeltaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A delta that was made: from the blobs of `base`, joined by `+`, to `target`. Not worth it: `delta` is empty."""

    base: str
    target: str
    delta: str
    size_bytes: int
    made_at: datetime


class RecoveryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub that was restored knows of a site, or one that found the site to be ahead of its database.

    Generations above `known` up to `base` were issued in a time that this database does not know; what is issued
    now is above `base`. `seen` is the highest of them that was reported, first by `host`. While `held_since` is
    set, nothing is issued to the site.
    """

    site: str
    known: int
    base: int
    seen: int = 0
    host: str = ""
    held_since: datetime | None = None


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """How many secrets were revoked, and the names of the API tokens that hold on."""

    join_tokens: int
    tokens: int
    kept: tuple[str, ...]


class AppliedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one verified Report changes on the hub."""

    host: str
    site: str
    sequence: int
    seen_at: datetime
    sent_at: datetime
    clock_offset_s: float
    generation: int
    observed: Observed | None = None
    facts: HostFacts | None = None
    events: tuple[Event, ...] = ()


class HubStore(
    AuditLog,
    HostIdentities,
    Policies,
    MetricWindows,
    Deciding,
    Presences,
    RelayRecords,
    Secrets,
    Configurations,
    Authorities,
    TelemetryStore,
    TopicStore,
    DownlinkStore,
    QuestionStore,
    SinkStore,
    Protocol,
):
    """All methods raise `Unavailable` when the database is locked for too long, full or gone."""

    def close(self) -> None:
        """Finish what is queued and let go of the database."""
        ...

    def setting(self, key: str) -> bytes | None:
        """Return a setting, such as the hub's keys' ids or its schema of names."""
        ...

    def put_setting(self, key: str, value: bytes) -> None:
        """Store a setting."""
        ...

    # operators
    def add_token(self, token: TokenRecord, audit: Audit) -> None:
        """Store an API token; `Conflict` when the name is taken by one that is valid."""
        ...

    def token_by_hash(self, hash: str) -> TokenRecord | None:
        """Return the API token with that hash."""
        ...

    def tokens(self) -> Sequence[TokenRecord]:
        """Return all API tokens, oldest first."""
        ...

    def remove_token(self, token_id: str, audit: Audit) -> None:
        """Forget an API token; `Missing` when there is none."""
        ...

    def exchange_token(self, once_hash: str, token: TokenRecord, audit: Audit) -> bool:
        """Consume a one-time token and store `token` in its place; False when it is used up or unknown."""
        ...

    def touch_token(self, token_id: str, at: datetime) -> None:
        """Note that a token was used."""
        ...

    # sites and hosts
    def apply_documents(
        self,
        *,
        sites: Mapping[str, bytes],
        rollouts: Sequence[RolloutRecord],
        audits: Sequence[Audit],
        fleetwide: Sequence[PolicyRecord | SinkRecord] = (),
        relays: Mapping[str, bytes] = {},
        configurations: ConfigurationChanges = ConfigurationChanges(),  # noqa: B008 - frozen
    ) -> None:
        """Store documents of sites, relays, configurations and new rollouts together, all or none.

        `fleetwide` are those for all sites: policies and sinks.

        A site or relay that is there keeps what it was issued. `Conflict` when a rollout's name is taken.
        """
        ...

    def site(self, name: str) -> SiteRecord | None:
        """Return a site."""
        ...

    def sites(self) -> Sequence[SiteRecord]:
        """Return all sites by name (without `desired`, which can be large)."""
        ...

    def remove_site(self, name: str, audit: Audit) -> None:
        """Forget a site, its join tokens and assignments; `Conflict` while it has hosts, `Missing` when unknown."""
        ...

    def issue_desired(
        self,
        site: str,
        generation: int,
        desired: bytes,
        expires_at: datetime,
        *,
        after: int | None = None,
    ) -> None:
        """Store a site's new DesiredState; `Conflict` unless the stored generation is `after`, and lower.

        None is one below `generation`: only a hub that was restored leaves numbers out.
        """
        ...

    def add_join_token(self, token: JoinTokenRecord, audit: Audit) -> None:
        """Store a join token; `Missing` when its site is unknown."""
        ...

    def enroll_host(self, join_hash: str, host: HostRecord, audit: Audit) -> HostRecord:
        """Use a join token once and store the host, in one transaction.

        A host with the same name, site and keys is returned as it is without using the token up. A token that
        replaces a host puts this one in its place: the old keys are unknown from then on, and a quarantine ends.

        Raises:
            Denied: the token is unknown (`join.unknown`), used up (`join.used_up`), expired at
                `host.enrolled_at` (`join.expired`) or for another host's name (`join.other_host`).
            Conflict: another host has that name (`host.name_taken`).
        """
        ...

    def host(self, name: str) -> HostRecord | None:
        """Return a host."""
        ...

    def hosts(self, site: str | None = None) -> Sequence[HostRecord]:
        """Return all hosts, or those of a site, by name."""
        ...

    def remove_host(self, name: str, audit: Audit) -> None:
        """Forget a host; `Missing` when unknown."""
        ...

    def apply_reports(self, reports: Sequence[AppliedReport]) -> int:
        """Apply one host's reports in order, those above its stored sequence only; return the sequence now stored.

        `Missing` when the host is unknown. Grouped with other callers into one commit.
        """
        ...

    def events(self, *, site: str = "", host: str = "", limit: int = 100) -> Sequence[EventRecord]:
        """Return the newest events, newest first."""
        ...

    # releases
    def add_release(self, release: ReleaseRecord, audit: Audit) -> bool:
        """Store a release; False when the very same is there; `Conflict` when other content has that name.

        Evidence takes the place of what the release had, also when it is there.
        """
        ...

    def release(self, name: str) -> ReleaseRecord | None:
        """Return a release, by its own name or that of an edition of it (`skerry.kit.editions`)."""
        ...

    def publish(self, publication: Publication, audit: Audit | None = None) -> bool:
        """Store new metadata and what follows from it, all or nothing; tell whether its release is new.

        A few older versions of each role are kept, and every root. `Conflict` when somebody else has published
        in between (`metadata.moved`), or as `add_release`.
        """
        ...

    def metadata(self, role: str, version: int | None = None) -> bytes | None:
        """Return a role's signed metadata, the newest or that of a version."""
        ...

    def metadata_versions(self) -> Mapping[str, int]:
        """Return the newest version of each role."""
        ...

    def releases(self) -> Sequence[ReleaseRecord]:
        """Return all releases by application, oldest first."""
        ...

    def remove_release(self, name: str, audit: Audit) -> None:
        """Forget a release; `Conflict` while an assignment or a running rollout names it; `Missing` when unknown."""
        ...

    # rollouts and assignments
    def rollout(self, name: str) -> RolloutRecord | None:
        """Return a rollout."""
        ...

    def rollouts(self, *, running_only: bool = False) -> Sequence[RolloutRecord]:
        """Return rollouts, oldest first."""
        ...

    def advance_rollout(
        self,
        rollout: RolloutRecord,
        *,
        assign: Sequence[AssignmentRecord] = (),
        unassign: Sequence[tuple[str, str]] = (),
        audit: Audit | None = None,
        turn: Turn | None = None,
    ) -> None:
        """Store a decision: the rollout's new state, assignments set, and (site, application) pairs removed.

        `Conflict` unless the stored version is `rollout.version`; the stored one then rises by one. `Conflict` as well
        (`rollout.lease_lost`) when it is decided in a turn that is over: somebody else has taken the lease since.
        """
        ...

    def remove_rollout(self, name: str, audit: Audit) -> None:
        """Forget a rollout that has ended; `Conflict` while it runs; `Missing` when unknown."""
        ...

    def assignments(self, site: str | None = None) -> Sequence[AssignmentRecord]:
        """Return all assignments, or those of a site."""
        ...

    def wipe_volumes(self, site: str, application: str, audit: Audit) -> int:
        """Ask once more that an application's volumes at a site be emptied; return how often that was asked by now.

        The count only ever rises: it outlives rollouts, the end of the assignment, and the site. `Missing` when the
        site is unknown (`site.unknown`) or the application is not assigned there (`assignment.unknown`).
        """
        ...

    def wipes(self, site: str) -> Mapping[str, int]:
        """Return how often volumes at a site were to be emptied, by application; those never asked for are absent."""
        ...

    # recovery
    def recoveries(self) -> Sequence[RecoveryRecord]:
        """Return what is known of sites that may be ahead of this database, by name."""
        ...

    def put_recovery(self, record: RecoveryRecord, audit: Audit | None = None) -> None:
        """Store what is known of a site, in the place of what was; `Conflict` when the site has gone."""
        ...

    def settle_site(
        self, record: RecoveryRecord, audit: Audit, *, assign: Sequence[AssignmentRecord] | None = None
    ) -> None:
        """End the hold of a site; `assign`, unless None, takes the place of all its assignments.

        `Conflict` when the site is not held (`site.not_held`).
        """
        ...

    def begin_restored(self, mark: RestoreMark, audit: Audit, *, revoke_tokens: bool) -> Revoked:
        """Make a restored database ready to be served.

        All join tokens and one-time secrets are revoked, and with `revoke_tokens` all API tokens. Every site is
        noted with its generation as `known` and the mark's `base`. Deltas are forgotten.
        """
        ...

    def restored(self) -> RestoreMark | None:
        """Return when this database was restored, None when it never was."""
        ...

    # deltas
    def deltas(self) -> Sequence[DeltaRecord]:
        """Return what is known of deltas, oldest first."""
        ...

    def put_delta(self, delta: DeltaRecord) -> None:
        """Store what is known of a pair, in the place of what was."""
        ...

    def remove_delta(self, base: str, target: str) -> None:
        """Forget a pair; an unknown one is fine."""
        ...
