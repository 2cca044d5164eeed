"""Report (host -> hub): what a host observed, and what happened there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.audit import LinkDigest
from skerry.spec.binding import BindingView
from skerry.spec.downlink import MAX_DOWNLINKS, DownlinkId, DownlinkState
from skerry.spec.facts import HostFacts
from skerry.spec.hold import Hold
from skerry.spec.ingress import RouteView
from skerry.spec.metadata import Part
from skerry.spec.names import DnsView
from skerry.spec.pki import HostPki
from skerry.spec.topics import BusView

REPORT_TYPE = "application/vnd.skerry.report+json"
MAX_NUMBER = 1 << 62  # databases keep 64 bits, one of them for the sign

Instant = Annotated[datetime, Meta(tz=True)]
SessionName = Annotated[str, Meta(pattern=r"^[0-9a-f-]{0,64}$")]
"""Eight hexadecimal digits that tell machines apart, a hyphen, and what tells runs apart; empty when not stated."""

Phase = Literal[
    "pending",
    "fetching",
    "preparing",
    "testing",
    "standing-by",
    "waiting-window",
    "held",
    "starting",
    "soaking",
    "running",
    "returning",
    "stopping",
    "stopped",
]
"""How an application stands on its host.

While there is a candidate it is that one's: `fetching`, `preparing` (verified and laid out) and `testing` make it
ready; ready, it is `standing-by` (another host's turn), waits for the site's window (`waiting-window`) or for a person
at the site (`held`); `starting` and `soaking` are its trial.
"""
ComponentState = Literal[
    "waiting", "starting", "running", "ready", "unready", "backoff", "stopping", "exited"
]


class VariantChoice(Part, frozen=True, kw_only=True):
    """Which variant of a model this host runs, and why this one: one line per variant that was looked at.

    For the image of a component, `kind` is `image`, `model` the component and `version` empty.
    """

    model: str
    version: str
    variant: str
    why: tuple[str, ...] = ()
    kind: Literal["model", "image"] = "model"


class ComponentView(Part, frozen=True, kw_only=True):
    """One component as seen on its host. `endpoints` maps a port's name to host:port; `image` is its identity."""

    state: ComponentState
    release: str = ""
    restarts: int = 0
    exit_code: int | None = None
    endpoints: dict[str, str] = {}
    limits: dict[str, str] = {}
    message: str = ""
    image: str = ""


class FetchProgress(Part, frozen=True, kw_only=True):
    """How far the download of a release is, as of a few seconds ago.

    `full_bytes` is what it would be without deltas, 0 when the host does not say. `rate` is in bytes per second over
    the last seconds; `left_s` is the time to go at that rate, None while
    nothing flows (`ApplicationView.why` says what holds it back).
    """

    done_bytes: Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
    total_bytes: Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
    full_bytes: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    rate: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    left_s: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None


class ApplicationView(Part, frozen=True, kw_only=True):
    """One application as seen on its host.

    `release` is the one that is kept (the last proven one); `candidate` the one under trial; `refused` those
    that failed here, with the reason, by release digest. `failed_variants` are those that failed their
    self-test here, with the reason. `duty` is empty where the application is not placed by turns. `fetch` is
    there while files are being fetched.
    """

    phase: Phase
    release: str = ""
    candidate: str = ""
    why: str = ""
    refused: dict[str, str] = {}
    components: dict[str, ComponentView] = {}
    choices: tuple[VariantChoice, ...] = ()
    failed_variants: dict[str, str] = {}
    duty: Literal["", "active", "stand-by"] = ""
    fetch: FetchProgress | None = None


class MetadataHeld(Part, frozen=True, kw_only=True):
    """The signed metadata that a host holds: versions of root and snapshot, and when the first of it expires.

    After that the host takes nothing new, and what runs there runs on. `trouble` says why it could not get newer
    metadata when it last tried.
    """

    root: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    snapshot: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    expires_at: Instant | None = None
    trouble: Annotated[str, Meta(max_length=4096)] = ""


class MadeSecret(Part, frozen=True, kw_only=True):
    """A value that the host made for itself: of which version, the how manieth, and whether it is `used` or comes next.

    `public` is base64 of the SubjectPublicKeyInfo of a pair of keys, empty for random text.
    """

    name: Annotated[str, Meta(max_length=64)]
    version: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    round: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    made_at: Instant
    not_before: Instant | None = None
    used: bool = False
    public: Annotated[str, Meta(max_length=1024)] = ""


class Observed(Part, frozen=True, kw_only=True):
    """Everything a host runs, under the generation it acts on.

    `ahead` says of releases that are fetched before they are assigned how far they are. `holds` are those in force.
    `secrets` are the versions that are used, by name, `secrets_next` those that are held and to be used from their time
    on, and `made_secrets` what the host made for itself. `pki` is the host's part in the site's certificates. `routes`
    are those of the ingress, `dns` where it answers for names.
    `bindings` are those that are used or attached there, by name. `downlink` says by id what became of messages
    from the hub for applications of the host.
    """

    generation: int = 0
    applications: dict[str, ApplicationView] = {}
    neighbours: dict[str, Literal["heard", "silent", "unknown"]] = {}
    ahead: dict[str, str] = {}
    metadata: MetadataHeld = MetadataHeld()
    holds: Annotated[tuple[Hold, ...], Meta(max_length=256)] = ()
    bus: BusView | None = None
    secrets: dict[str, int] = {}
    secrets_next: dict[str, tuple[int, ...]] = {}
    made_secrets: Annotated[tuple[MadeSecret, ...], Meta(max_length=4096)] = ()
    pki: HostPki = HostPki()
    routes: Annotated[tuple[RouteView, ...], Meta(max_length=512)] = ()
    bindings: dict[str, BindingView] = {}
    dns: DnsView | None = None
    downlink: Annotated[dict[DownlinkId, DownlinkState], Meta(max_length=MAX_DOWNLINKS)] = {}


class Event(Part, frozen=True, kw_only=True):
    """Something that happened, at the host's (corrected) time.

    A host's own events are a chain: `number` counts them from 1, and `previous` is the digest of the one before. One
    that the hub tells of a host has the number 0.
    """

    at: Instant
    kind: Annotated[str, Meta(max_length=128)]
    message: Annotated[str, Meta(max_length=4096)] = ""
    application: str = ""
    component: str = ""
    number: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    previous: LinkDigest = ""


class Report(Part, frozen=True, kw_only=True, tag_field="type", tag="report"):
    """One numbered message of a host.

    Receiving a sequence twice changes nothing. `observed` and `facts` are absent when they have not changed
    since a report the hub acknowledged. `generation` is the DesiredState the host holds, and `clock` its own
    uncorrected time, so that the hub can tell it how wrong it is. `session` is the run of the agent, and `heard`
    the newest stretch of reports that the hub had named to it when that was another run's.

    `after` is the newest report before this one that told something and that the hub has not acknowledged to the
    host; 0 when there is none. Who has not got as far takes neither this one nor any that follows, and answers
    `tell_all`: a relay lost what lies between. Then the host hands over again whatever is not acknowledged.
    """

    host: str
    site: str
    sequence: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    sent_at: Instant
    clock: Instant
    generation: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    observed: Observed | None = None
    facts: HostFacts | None = None
    events: Annotated[tuple[Event, ...], Meta(max_length=1000)] = ()
    dropped_events: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
    session: SessionName = ""
    heard: Annotated[str, Meta(max_length=96)] = ""
    after: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0
