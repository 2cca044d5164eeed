"""DesiredState (hub -> site): what every host of one site shall run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.binding import BindingSpec
from skerry.spec.configuration import ConfiguredBy
from skerry.spec.downlink import MAX_DOWNLINKS, DownlinkMessage
from skerry.spec.gates import MAX_GATES, GateSpec
from skerry.spec.metadata import DigestText, Part
from skerry.spec.pki import SitePki
from skerry.spec.questions import MAX_OPEN_AT_SITE, Question
from skerry.spec.secret import SealedSecret, SecretId, SecretOrder
from skerry.spec.topics import BrokerKind, HostTopics

DESIRED_STATE_TYPE = "application/vnd.skerry.desired-state+json"


class ReleaseRef(Part, frozen=True, kw_only=True):
    """Where a release's document is found: by digest, among the blobs. `publisher` is who vouches for it."""

    digest: DigestText
    size_bytes: Annotated[int, Meta(ge=1)]
    publisher: Annotated[str, Meta(max_length=64)] = ""


class HealthPolicy(Part, frozen=True, kw_only=True):
    """When a host keeps a release: ready within `deadline_s`, then ready for `soak_s` without a break."""

    deadline_s: float = 300.0
    soak_s: float = 30.0


class Assignment(Part, frozen=True, kw_only=True):
    """One application on one host.

    `attempt` rises when a person asks to try a release again that a host has refused. `wipe` rises when a
    person asks to empty the application's volumes. An `urgent` release is fetched before others,
    and switched to outside the site's windows. `gates` are judged on
    the host while the release is on trial; `judges` is about how many hosts judge this rollout, each for itself.
    `since` is the generation that first had it, where a site is reached by bundles; it is for the hub alone.
    `release` is an edition's name, see `skerry.kit.editions`; `configuration`, by digest, is what goes with it here.
    """

    application: str
    release: str
    rollout: str = ""
    attempt: int = 1
    wipe: int = 0
    health: HealthPolicy = HealthPolicy()
    urgent: bool = False
    gates: Annotated[tuple[GateSpec, ...], Meta(max_length=MAX_GATES)] = ()
    judges: Annotated[int, Meta(ge=1)] = 1
    since: Annotated[int, Meta(ge=0)] = 0
    configuration: DigestText | None = None


class Neighbour(Part, frozen=True, kw_only=True):
    """A host of the same site: where its heartbeats come from and go to, and the key that signs them.

    The same key signs the tokens by which hosts of the site give each other blobs.
    """

    address: Annotated[str, Meta(max_length=256)] = ""
    sign_key: str


class SitePlacement(Part, frozen=True, kw_only=True):
    """Which hosts of the site run an application: the first `count` of `hosts` that are alive, in this order.

    A host counts as silent after `takeover_s` without a heartbeat. Only hosts that are assigned the application
    are listed.
    """

    count: Annotated[int, Meta(ge=1)]
    hosts: tuple[str, ...]
    takeover_s: float = 30.0
    split: Literal["keep", "majority"] = "keep"
    why: tuple[str, ...] = ()


class OpenWindow(Part, frozen=True, kw_only=True):
    """From each time of `cron` for `duration_s`. For a link, `rate` is in bytes per second; None sets no limit."""

    cron: Annotated[str, Meta(max_length=100)]
    duration_s: float
    rate: int | None = None


class LinkPolicy(Part, frozen=True, kw_only=True):
    """The link budget of the whole site, in bytes and seconds; None sets no limit.

    Each of `hosts` hosts has an equal share of all rates and budgets. `day_carry` and `month_carry` are how
    much may be saved up of what was not used. The site's time zone is `SitePolicy.time_zone`.
    """

    hosts: Annotated[int, Meta(ge=1)] = 1
    rate: int | None = None
    windows: tuple[OpenWindow, ...] = ()
    per_day: int | None = None
    day_carry: int = 0
    per_month: int | None = None
    month_carry: int = 0
    metered_rate: int | None = None
    metered_per_day: int | None = None


class DiskPolicy(Part, frozen=True, kw_only=True):
    """What downloads may take of each host's disk, in bytes; None sets no limit.

    `keep_free` is what a download has to leave free, `blobs` what all blobs together may take.
    """

    keep_free: int | None = None
    blobs: int | None = None


class SitePolicy(Part, frozen=True, kw_only=True):
    """What the site allows; windows are times of `time_zone`. `broker` None leaves the choice to the hosts."""

    host_network: bool = False
    link: LinkPolicy | None = None
    disk: DiskPolicy = DiskPolicy()
    switch_windows: tuple[OpenWindow, ...] = ()
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    broker: BrokerKind | None = None


class Upcoming(Part, frozen=True, kw_only=True):
    """A release that a host will get, and may fetch when nothing else is to be fetched."""

    application: str
    release: str


class DesiredState(Part, frozen=True, kw_only=True, tag_field="type", tag="desired-state"):
    """The whole of what a site shall be.

    `generation` rises strictly; a host refuses a lower one. After `expires_at` a host takes the document no
    more, but what it has taken it keeps running for ever. A host that `hosts` does not name keeps what it
    runs; one that is named runs exactly what is listed. An application that `placements` names runs only on
    the hosts whose turn it is; any other runs wherever it is assigned. `upcoming` are, by host, releases to fetch
    ahead; nothing else is done with them. A host that holds an older `snapshot` of the signed metadata than this
    one fetches the newest: something of these releases has changed since. `secrets` are, by host, values sealed
    to it alone, and `secret_orders` those it makes for itself; a host keeps one that is listed no more while a release
    there needs it. Versions whose ids are `revoked_secrets` are used no more whatever any document says. `pki` is what
    to trust and to issue with. `configurations` are those that assignments name.
    `bindings` are all that the site offers, in its order; each host matches them against what a release needs.
    `downlink` are messages from the hub for its applications.
    `bus` has the topics of hosts that share some with another host: these go from the one to the other.
    `questions` are what hosts shall answer.
    """

    site: str
    generation: Annotated[int, Meta(ge=1)]
    issued_at: datetime
    expires_at: datetime
    hosts: dict[str, tuple[Assignment, ...]] = {}
    releases: dict[str, ReleaseRef] = {}
    variables: dict[str, str] = {}
    placements: dict[str, SitePlacement] = {}
    neighbours: dict[str, Neighbour] = {}
    policy: SitePolicy = SitePolicy()
    upcoming: dict[str, tuple[Upcoming, ...]] = {}
    snapshot: Annotated[int, Meta(ge=0)] = 0
    secrets: dict[str, tuple[SealedSecret, ...]] = {}
    revoked_secrets: tuple[SecretId, ...] = ()
    secret_orders: dict[str, tuple[SecretOrder, ...]] = {}
    pki: SitePki = SitePki()
    configurations: ConfiguredBy = {}
    bindings: tuple[BindingSpec, ...] = ()
    downlink: Annotated[tuple[DownlinkMessage, ...], Meta(max_length=MAX_DOWNLINKS)] = ()
    bus: dict[str, HostTopics] = {}
    questions: Annotated[tuple[Question, ...], Meta(max_length=MAX_OPEN_AT_SITE)] = ()
