"""The messages of the carrier API: enrolment and sync, as hub, relay and host exchange them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from skerry.spec.metadata import DigestText, Name, Part

TRUST_ROOT_TYPE = "application/vnd.skerry.trust-root+json"
TIME_TYPE = "application/vnd.skerry.time+json"
KEY_CHANGE_TYPE = "application/vnd.skerry.key-change+json"

MAX_SYNC_REPORTS = 100
MAX_BODY_BYTES = 2 << 20

MAX_DELTA_QUESTIONS = 1024
DeltaBase = Annotated[tuple[DigestText, ...], Meta(max_length=8)]
"""Blobs, one after the other, that a delta is made from; empty: nothing."""

JsonEnvelope = dict[str, Any]
"""A DSSE envelope as JSON; read only through `skerry.trust`."""


class TrustRoot(Part, frozen=True, kw_only=True, tag_field="type", tag="trust-root"):
    """What a host trusts before anything else; a join token pins the digest of its bytes.

    `hub` is the hub's id, made once. `root` is a version of the TUF root metadata: everything that is signed is
    trusted because of it, or of a later one that follows on it.
    """

    hub: str
    ca_pem: str
    root: dict[str, Any]

    @property
    def root_bytes(self) -> bytes:
        """The root metadata as a file; its signatures are over its canonical form, not over these bytes."""
        return msgspec.json.encode(self.root)


class EnrollRequest(Part, frozen=True, kw_only=True):
    """A host asks to belong to a site. `proof` is a Report envelope with sequence 1, signed by the new key."""

    secret: Annotated[str, Meta(max_length=256)]
    host: Name
    sign_key: Annotated[str, Meta(max_length=64)]
    seal_key: Annotated[str, Meta(max_length=64)]
    proof: JsonEnvelope


class EnrollAnswer(Part, frozen=True, kw_only=True):
    """The host's place. Enrolling the same key again gives the same answer."""

    site: str
    host: str


class KeyChange(Part, frozen=True, kw_only=True, tag_field="type", tag="key-change"):
    """A host puts new keys in the place of old ones; signed by the old and by the new signing key."""

    host: Name
    site: Name
    old_key: Annotated[str, Meta(max_length=64)]
    sign_key: Annotated[str, Meta(max_length=64)]
    seal_key: Annotated[str, Meta(max_length=64)]


class KeyChangeRequest(Part, frozen=True, kw_only=True):
    """The envelope of a KeyChange."""

    change: JsonEnvelope


class KeyChangeAnswer(Part, frozen=True, kw_only=True):
    """The hub knows the host by this key now. Asking again gives the same answer."""

    host: str
    sign_key: str


class SyncRequest(Part, frozen=True, kw_only=True):
    """Reports not yet acknowledged, in order, the last one fresh; and how long to wait for news.

    `want_token` asks for a blob token; one always comes with a new DesiredState. `metrics` is a MetricBatch envelope.
    """

    reports: Annotated[tuple[JsonEnvelope, ...], Meta(min_length=1, max_length=MAX_SYNC_REPORTS)]
    wait_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    want_token: bool = False
    metrics: JsonEnvelope | None = None


class SyncAnswer(Part, frozen=True, kw_only=True):
    """Acknowledgement, and what is new.

    `desired` is a DesiredState envelope when the hub holds a newer generation. `time` is a HubTime envelope
    when the host's clock is off. `blob_token` opens `GET /v1/blobs`. `tell_all`: the hub has forgotten what the host
    told, and asks for `observed` and `facts` with the next report. `newest` names the newest stretch of reports that
    the hub has of this host when it is another run's. `metrics` is the sequence of the MetricBatch that was taken.
    `held` is up to which sequence a relay keeps the reports on its disk: they need not be sent again to `keeper`, which
    names that relay and its disk, but are the host's to keep until they are acknowledged.
    """

    acknowledged: int
    desired: JsonEnvelope | None = None
    time: JsonEnvelope | None = None
    blob_token: str = ""
    tell_all: bool = False
    newest: str = ""
    metrics: int = 0
    held: int = 0
    keeper: Annotated[str, Meta(max_length=128)] = ""


class DeltaQuestion(Part, frozen=True, kw_only=True):
    """A blob that a host wants, and what it holds that the blob may be made from.

    Each of `bases` is blobs to be read one after the other; an empty one stands for nothing at all, which asks for
    the blob compressed.
    """

    target: DigestText
    bases: Annotated[tuple[DeltaBase, ...], Meta(min_length=1, max_length=4)]


class DeltaRequest(Part, frozen=True, kw_only=True):
    """What a host would rather have as deltas."""

    wanted: Annotated[tuple[DeltaQuestion, ...], Meta(max_length=MAX_DELTA_QUESTIONS)]


class DeltaAvailable(Part, frozen=True, kw_only=True):
    """A delta that is there: it is the blob `delta`."""

    target: DigestText
    base: DeltaBase
    delta: DigestText
    size_bytes: Annotated[int, Meta(ge=1)]


class DeltaComing(Part, frozen=True, kw_only=True):
    """A delta that is being made or will be, ready in about `left_s`."""

    target: DigestText
    base: DeltaBase
    left_s: Annotated[float, Meta(ge=0)]


class DeltaAnswer(Part, frozen=True, kw_only=True):
    """Deltas to what was asked for. For a pair that is in neither list there is none."""

    available: tuple[DeltaAvailable, ...] = ()
    coming: tuple[DeltaComing, ...] = ()


class HubTime(Part, frozen=True, kw_only=True, tag_field="type", tag="time"):
    """The hub's time, bound to one report so that it cannot be replayed."""

    host: str
    sequence: int
    now: datetime


class JoinToken(Part, frozen=True, kw_only=True):
    """What a join token says; travels as `skerry-join.` and base64url of its JSON.

    `hub` is where to ask: the hub's address, or that of a relay. `host` is the host that the one who joins replaces;
    empty for a new one. A token that names a `relay` is for that relay alone, and for no site.
    """

    hub: str
    site: str
    root: str
    secret: str
    expires_at: datetime
    host: str = ""
    relay: str = ""
