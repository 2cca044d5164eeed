"""`Relay`: a gateway inside a network segment, and the signed documents that it and the hub exchange."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from skerry.spec.metadata import DigestText, Document, Name, Part, Size
from skerry.spec.report import MAX_NUMBER, Instant, SessionName
from skerry.spec.site import SiteLink

RELAY_STATE_TYPE = "application/vnd.skerry.relay-state+json"
RELAY_REPORT_TYPE = "application/vnd.skerry.relay-report+json"

MAX_SITES_BELOW = 5_000
MAX_HOSTS_BELOW = 20_000
MAX_RELAYS_BELOW = 200
MAX_WANTED = 5_000

Address = Annotated[
    str,
    Meta(
        pattern=r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(:[0-9]{1,5})?$",
        description="HOST or HOST:PORT where others reach it, such as relay-l3.plant.example:8443",
    ),
]
Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class RelaySpec(Part, frozen=True, kw_only=True):
    """What is particular to a relay.

    `upstreams` are the relays above it, in the order of preference, for those who read; empty means that it dials the
    hub. `addresses` is where hosts and lower relays reach it, the first where new ones are sent; its certificate names
    them all. `cache` is what blobs may take of its disk, `queue` what undelivered reports may. `link` bounds what it
    fetches from above; its rate is the relay's own. Where `prefetch` is false, blobs are fetched when they are asked
    for and not before.
    """

    upstreams: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=16)]
    cache: Size = "20GiB"
    queue: Size = "1GiB"
    link: SiteLink = SiteLink()
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    prefetch: bool = True


class Relay(Document, frozen=True, kw_only=True, tag="Relay"):
    """A relay as people write it; its labels name its zone."""

    spec: RelaySpec


class WantedBlob(Part, frozen=True, kw_only=True):
    """A blob that sites below are assigned or will be."""

    digest: DigestText
    size_bytes: Count


class RelayState(Part, frozen=True, kw_only=True, tag_field="type", tag="relay-state"):
    """What a relay shall be; signed by the hub as a DesiredState is, and refused as one is.

    `sites` are those whose hosts may come through it or a relay below it, with the signing key of each of their hosts;
    `relays` are those below it, at any depth, with theirs. `certificate_pem` is for its port, of the key that its
    newest report named; empty until it named one. `wanted` is to be kept, and fetched ahead where `spec.prefetch` is
    true, the most urgent first.
    """

    relay: Name
    generation: Annotated[int, Meta(ge=1)]
    issued_at: datetime
    expires_at: datetime
    spec: RelaySpec
    sites: Annotated[dict[str, dict[str, str]], Meta(max_length=MAX_SITES_BELOW)] = {}
    relays: Annotated[dict[str, str], Meta(max_length=MAX_RELAYS_BELOW)] = {}
    wanted: Annotated[tuple[WantedBlob, ...], Meta(max_length=MAX_WANTED)] = ()
    certificate_pem: Annotated[str, Meta(max_length=16_384)] = ""


class CacheView(Part, frozen=True, kw_only=True):
    """How full a relay's cache is, and what it spared since the relay began."""

    blobs: Count = 0
    used_bytes: Count = 0
    limit_bytes: Count = 0
    wanted: Count = 0
    wanted_here: Count = 0
    hits: Count = 0
    misses: Count = 0
    hit_bytes: Count = 0
    fetched_bytes: Count = 0
    damaged: Count = 0


class QueueView(Part, frozen=True, kw_only=True):
    """What a relay still has to hand up. `dropped` counts what it gave up for want of room, since it was set up."""

    reports: Count = 0
    metrics: Count = 0
    used_bytes: Count = 0
    limit_bytes: Count = 0
    oldest_s: Count = 0
    dropped_reports: Count = 0
    dropped_metrics: Count = 0


class TrafficView(Part, frozen=True, kw_only=True):
    """Bytes in the last full hour: to and from above, to and from below."""

    up_sent: Count = 0
    up_received: Count = 0
    down_sent: Count = 0
    down_received: Count = 0


class RelayView(Part, frozen=True, kw_only=True):
    """How a relay stands. `hosts` and `relays` are those that dial it directly, and seconds since they were heard."""

    version: Annotated[str, Meta(max_length=64)] = ""
    upstream: Annotated[str, Meta(max_length=512)] = ""
    trouble: Annotated[str, Meta(max_length=1024)] = ""
    cache: CacheView = msgspec.field(default_factory=CacheView)
    queue: QueueView = msgspec.field(default_factory=QueueView)
    traffic: TrafficView = msgspec.field(default_factory=TrafficView)
    held: Annotated[dict[str, Count], Meta(max_length=MAX_SITES_BELOW)] = {}
    hosts: Annotated[dict[str, Count], Meta(max_length=MAX_HOSTS_BELOW)] = {}
    relays: Annotated[dict[str, Count], Meta(max_length=MAX_RELAYS_BELOW)] = {}


class RelayReport(Part, frozen=True, kw_only=True, tag_field="type", tag="relay-report"):
    """One numbered message of a relay, signed by it. `tls_key` is the public key of its port, base64 of its DER.

    `view` is absent when it has not changed much since one that the hub has.
    """

    relay: Name
    sequence: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    sent_at: Instant
    clock: Instant
    generation: Count = 0
    session: SessionName = ""
    tls_key: Annotated[str, Meta(max_length=512)] = ""
    view: RelayView | None = None


def relay_state_payload(content: bytes) -> RelayState:
    """Return a RelayState that was verified before; `msgspec.DecodeError` when it is none."""
    return msgspec.json.decode(content, type=RelayState)
