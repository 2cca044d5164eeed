"""The messages of the operator API, as the hub answers them and the client reads them.

A view says what is seen, with its age: every instant that something was learnt at is a field of its own, and
None means never.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from skerry.spec.api_configuration import ConfigurationEffect
from skerry.spec.api_health import HealthView
from skerry.spec.api_identity import QuarantineView
from skerry.spec.api_recovery import HeldView
from skerry.spec.api_relay import Via
from skerry.spec.api_rollout import Control, Halt, RolloutState, SiteProgress, WaveProgress
from skerry.spec.binding import BindingView
from skerry.spec.desired import SitePlacement
from skerry.spec.evidence import Evidence
from skerry.spec.facts import HostFacts
from skerry.spec.hold import Hold
from skerry.spec.metadata import DigestText, Name, Part
from skerry.spec.overriding import Override, OverrideReason
from skerry.spec.problems import Problem
from skerry.spec.publishing import Revocation
from skerry.spec.report import ApplicationView, Event, MetadataHeld

Role = Literal["viewer", "publisher", "operator", "admin"]
Presence = Literal["online", "silent", "never"]
JsonDocument = dict[str, Any]


class LoginRequest(Part, frozen=True, kw_only=True):
    """The one-time secret the hub printed."""

    secret: Annotated[str, Meta(max_length=256)]


class TokenRequest(Part, frozen=True, kw_only=True):
    """Ask for an API token; `ttl_s` None never expires. `sites` limits it to those that a label selector matches."""

    name: Name
    role: Role
    sites: Annotated[str, Meta(max_length=512)] = ""
    ttl_s: Annotated[float, Meta(gt=0, le=100 * 366 * 86400)] | None = None


class TokenView(Part, frozen=True, kw_only=True):
    """An API token without its secret. `sites` is the selector of the sites it is limited to; empty when it is not."""

    id: str
    name: str
    role: Role
    sites: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class NewToken(Part, frozen=True, kw_only=True):
    """An API token, with its secret shown this once."""

    secret: str
    token: TokenView


class ApplyRequest(Part, frozen=True, kw_only=True):
    """Documents to store together, all or none.

    With a reason in `override_policy`, rollouts begin although policies are not satisfied.
    """

    documents: Annotated[tuple[JsonDocument, ...], Meta(max_length=10000)]
    dry_run: bool = False
    override_policy: OverrideReason = ""


class Change(Part, frozen=True, kw_only=True):
    """What applying a document does."""

    kind: str
    name: str
    action: Literal["create", "update", "unchanged"]
    before: JsonDocument | None = None
    after: JsonDocument | None = None


class ApplyAnswer(Part, frozen=True, kw_only=True):
    """The changes, made or, in a dry run, to be made; and what policies would like otherwise.

    `effects` say which values of applications would change where, the first thousand, once rollouts bring them.
    """

    changes: tuple[Change, ...]
    dry_run: bool = False
    warnings: tuple[str, ...] = ()
    effects: tuple[ConfigurationEffect, ...] = ()


class SiteView(Part, frozen=True, kw_only=True):
    """A site: as written, and as seen. `last_seen_at` is that of the host seen last.

    While it is `held`, nothing is issued to it. `health` is the same word that `skerry health` gives.
    """

    name: str
    labels: dict[str, str]
    document: JsonDocument
    generation: int
    hosts: int
    hosts_online: int
    last_seen_at: datetime | None
    presence: Presence
    assignments: dict[str, str] = {}
    held: HeldView | None = None
    health: HealthView | None = None


class HostView(Part, frozen=True, kw_only=True):
    """A host as its reports show it. `observed_at` is the host's own time of what `applications` says.

    `ahead` are releases whose files it fetches before it gets them, and how far they are. `metadata` is what it
    holds of what is signed of releases. `holds` are what people there have said, in force as of `observed_at`.
    `secrets` are the versions it uses, `bindings` those that are used there or attached to it. While it is
    `quarantined`, nothing is taken from it or given to it.
    """

    name: str
    site: str
    enrolled_at: datetime
    last_seen_at: datetime | None
    presence: Presence
    sequence: int
    generation_held: int
    generation_wanted: int
    clock_offset_s: float | None = None
    observed_at: datetime | None = None
    applications: dict[str, ApplicationView] = {}
    ahead: dict[str, str] = {}
    metadata: MetadataHeld | None = None
    holds: tuple[Hold, ...] = ()
    secrets: dict[str, int] = {}
    bindings: dict[str, BindingView] = {}
    facts: HostFacts = {}
    quarantined: QuarantineView | None = None


class ReleaseView(Part, frozen=True, kw_only=True):
    """A release: the digest of its document, what it needs, who brought it, and who signed it.

    `revoked`, if it is there, says why no host takes it any more.
    """

    name: str
    application: str
    version: str
    digest: DigestText
    models: dict[str, str]
    size_bytes: int
    created_at: datetime
    created_by: str
    publisher: str = ""
    revoked: Revocation | None = None
    evidence: tuple[Evidence, ...] = ()
    document: JsonDocument | None = None


class AppView(Part, frozen=True, kw_only=True):
    """An application over the fleet: its releases, and on how many hosts each of them runs."""

    name: str
    releases: tuple[str, ...]
    running: dict[str, int]


class ModelView(Part, frozen=True, kw_only=True):
    """A model's version over the fleet: its variants, the releases that carry it, and hosts per variant."""

    name: str
    version: str
    variants: tuple[str, ...]
    releases: tuple[str, ...]
    running: dict[str, int]


class RolloutView(Part, frozen=True, kw_only=True):
    """A rollout: as written, and where each of its waves and sites is; `override`, if it began in spite of a policy.

    `control` is what people have said, `halt` why it was halted.
    """

    name: str
    document: JsonDocument
    release: str
    state: RolloutState
    why: str
    created_at: datetime
    created_by: str
    ended_at: datetime | None = None
    sites: dict[str, SiteProgress] = {}
    waves: tuple[WaveProgress, ...] = ()
    control: Control | None = None
    halt: Halt | None = None
    attempt: int = 1
    override: Override | None = None


class JoinTokenRequest(Part, frozen=True, kw_only=True):
    """Ask for a join token; one that `replaces` a host lets one machine take its name, and refuses its old keys.

    Who joins with it asks the relay `via`, or that address; the hub itself when it is empty.
    """

    ttl_s: Annotated[float, Meta(gt=0, le=366 * 86400)] = 86400.0
    uses: Annotated[int, Meta(ge=1, le=10000)] = 1
    replaces: Annotated[str, Meta(max_length=63)] = ""
    via: Via = ""


class JoinTokenAnswer(Part, frozen=True, kw_only=True):
    """A join token, shown this once."""

    token: str
    site: str
    expires_at: datetime
    uses: int


class BlobRef(Part, frozen=True, kw_only=True):
    """A blob by digest and length."""

    digest: DigestText
    size_bytes: Annotated[int, Meta(ge=0)]


class MissingRequest(Part, frozen=True, kw_only=True):
    """Which of these blobs does the hub lack?"""

    blobs: Annotated[tuple[BlobRef, ...], Meta(max_length=100_000)]


class MissingBlob(Part, frozen=True, kw_only=True):
    """A blob the hub lacks, and how much of it has arrived."""

    digest: str
    offset: int


class MissingAnswer(Part, frozen=True, kw_only=True):
    """The blobs the hub lacks."""

    missing: tuple[MissingBlob, ...]


class UploadAnswer(Part, frozen=True, kw_only=True):
    """How much of a blob has arrived, and whether it is whole and verified."""

    offset: int
    complete: bool


class EventView(Part, frozen=True, kw_only=True):
    """An event of a host: when it happened there, and when the hub heard of it."""

    id: int
    host: str
    site: str
    received_at: datetime
    event: Event


class AuditView(Part, frozen=True, kw_only=True):
    """Who did what, why, and by which decision (`ROLLOUT#NUMBER`), if a rollout decided it."""

    id: int
    at: datetime
    who: str
    action: str
    subject: str
    outcome: str
    why: str = ""
    decision: str = ""


class WhoAmI(Part, frozen=True, kw_only=True):
    """Who the hub takes the caller for; `sites` is the selector of the sites it is limited to, empty when it is not."""

    name: str
    role: Role
    sites: str = ""


class PreviewRequest(Part, frozen=True, kw_only=True):
    """A release document, pinned, that need not have been pushed."""

    release: JsonDocument
    selector: Annotated[str, Meta(max_length=4096)] = "*"


class PreviewCombination(Part, frozen=True, kw_only=True):
    """Hosts that would get the same variants: by model, and by component for images. `examples` are host names."""

    models: dict[str, str]
    images: dict[str, str]
    hosts: int
    examples: tuple[str, ...]
    size_bytes: int


class PreviewReason(Part, frozen=True, kw_only=True):
    """Why hosts get nothing, without any host's own figures. A host may have several reasons."""

    reason: str
    hosts: int
    examples: tuple[str, ...]


class PreviewShortfall(Part, frozen=True, kw_only=True):
    """A host that lacks room: what the release needs there beyond what the host holds, and what is left."""

    host: str
    site: str
    needed_bytes: int
    left_bytes: int
    as_of: datetime | None = None


class PreviewRoom(Part, frozen=True, kw_only=True):
    """Disk or memory over the hosts that get something: how many lack it, the worst of them, how many say nothing."""

    lacking: int = 0
    worst: tuple[PreviewShortfall, ...] = ()
    unknown: int = 0


class FleetPreview(Part, frozen=True, kw_only=True):
    """What a release would come to on the hosts of selected sites, by the facts they last reported.

    `hosts` is `matched` + `unmatched` + `elsewhere` + `without_facts`. `elsewhere` are hosts that its placement
    does not want. The oldest of the facts are from `oldest_facts_at`. A host that matches may still lack disk or
    memory. `loose_topics` are those at whose other end nobody is, with the sites.
    `lacking_secrets` are those the release uses that have no value now, with the sites where they have none.
    `route_conflicts` say why routes of it cannot be, with the sites; `binding_conflicts`, which exclusive bindings
    are another application's.
    `excluded` are sites that lack a binding it needs, with the reason: no rollout offers it to them.
    `misconfigured` is what is wrong with its configuration as it would be now, with the sites where it is.
    """

    release: str
    selector: str = "*"
    sites: int
    hosts: int
    matched: int
    unmatched: int
    elsewhere: int
    without_facts: int
    combinations: tuple[PreviewCombination, ...]
    reasons: tuple[PreviewReason, ...]
    elsewhere_reasons: tuple[PreviewReason, ...] = ()
    without_facts_examples: tuple[str, ...] = ()
    disk: PreviewRoom
    memory: PreviewRoom
    oldest_facts_at: datetime | None = None
    loose_topics: dict[str, tuple[str, ...]] = {}
    lacking_secrets: dict[str, tuple[str, ...]] = {}
    route_conflicts: dict[str, tuple[str, ...]] = {}
    binding_conflicts: dict[str, tuple[str, ...]] = {}
    excluded: dict[str, str] = {}
    misconfigured: dict[str, tuple[str, ...]] = {}


class PlacementView(Part, frozen=True, kw_only=True):
    """An application's placement in a site: as last issued, and as it would be issued now, with the reason per host."""

    application: str
    release: str
    generation: int
    issued: SitePlacement | None
    now: SitePlacement | None
    why: dict[str, str]


class VolumeView(Part, frozen=True, kw_only=True):
    """A volume as a release declares it; `size` None has no limit, `path` is for containers."""

    component: str
    name: str
    path: str = ""
    size: str | None = None


class VolumesView(Part, frozen=True, kw_only=True):
    """The volumes of an application at a site: as its assigned release declares them, and the hosts that have them.

    `wipes` says how often it was asked that they be emptied.
    """

    site: str
    application: str
    release: str
    hosts: tuple[str, ...]
    volumes: tuple[VolumeView, ...]
    wipes: int


class WipeAnswer(Part, frozen=True, kw_only=True):
    """A wipe was asked for, the `count`-th of its kind, in the desired state of `generation`; `hosts` are to do it."""

    site: str
    application: str
    count: int
    generation: int
    hosts: tuple[str, ...]


class ProblemDetails(Part, frozen=True, kw_only=True):
    """An error as RFC 9457 problem document, with Skerry's stable `code`, family and hint."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    retryable: bool = False
    problems: tuple[Problem, ...] = ()
    facts: dict[str, str | int | float | bool | None] = {}
