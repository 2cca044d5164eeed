"""Bundles: what some sites need, in one file that is carried by hand; and the reports that are carried back.

A bundle lists all that is in it in one manifest, which the hub signs. Its bytes are described in
`docs/internals/bundles.md`, and read by `skerry.trust.bundle`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.carrier import MAX_SYNC_REPORTS, JsonEnvelope
from skerry.spec.metadata import DigestText, Name, Part
from skerry.spec.report import MAX_NUMBER, Instant

BUNDLE_TYPE = "application/vnd.skerry.bundle+json"

MAX_BUNDLE_SITES = 1_000
MAX_BUNDLE_HOSTS = 2_000
MAX_BUNDLE_ENTRIES = 10_000
MAX_BASES = 8
MAX_BLOB_BYTES = 1 << 40
MAX_SMALL_BYTES = 64 << 20
"""What metadata and desired states of a bundle may take together; whoever reads one holds no more in memory."""
MAX_CARRIED_BYTES = 2 << 20
"""What one part of carried reports may take."""

Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
EntryKind = Literal["metadata", "desired", "blob", "delta"]
Takeover = Literal["took it", "does not run", "has not answered", "was not asked"]
"""What came of asking the agent or the relay, which takes a bundle itself."""
BundleId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class BundleEntry(Part, frozen=True, kw_only=True):
    """A stretch of bytes. `offset` counts from the end of the manifest; entries follow each other without a gap.

    `metadata` is a file of signed metadata by its `name`; `desired` the DesiredState envelope of the site `name`.
    Of a `blob` the name says what it is, for people. A `delta` makes the blob `target` from `base`: blobs that the host
    holds, one after the other, or none.
    """

    kind: EntryKind
    name: Annotated[str, Meta(min_length=1, max_length=512)]
    digest: DigestText
    size_bytes: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
    offset: Count
    base: Annotated[tuple[DigestText, ...], Meta(max_length=MAX_BASES)] = ()
    target: DigestText | Literal[""] = ""
    target_bytes: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)] = 0

    @property
    def brings(self) -> str:
        """The digest of the blob that a host has thereby."""
        return self.target or self.digest


class BundleHost(Part, frozen=True, kw_only=True):
    """What is in a bundle for a host: the places of its `entries`, and the `releases` it is to run.

    `acknowledged` is up to which sequence the hub has the host's reports.
    """

    acknowledged: Count = 0
    entries: Annotated[tuple[Count, ...], Meta(max_length=MAX_BUNDLE_ENTRIES)] = ()
    releases: Annotated[tuple[str, ...], Meta(max_length=256)] = ()


class BundleSite(Part, frozen=True, kw_only=True):
    """What is in a bundle for a site: its DesiredState's `generation`, and what each of its hosts gets."""

    generation: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    hosts: Annotated[dict[Name, BundleHost], Meta(max_length=MAX_BUNDLE_HOSTS)] = {}


class BundleManifest(Part, frozen=True, kw_only=True, tag_field="type", tag="bundle"):
    """All that is in a bundle. `hub` is the id of the hub that made it, and `part` of `parts` files it is.

    After `expires_at` no host takes anything of it: the first of what is signed in it expires then.
    """

    id: BundleId
    hub: Annotated[str, Meta(max_length=256)]
    made_at: Instant
    expires_at: Instant
    part: Annotated[int, Meta(ge=1, le=1_000)] = 1
    parts: Annotated[int, Meta(ge=1, le=1_000)] = 1
    sites: Annotated[dict[Name, BundleSite], Meta(min_length=1, max_length=MAX_BUNDLE_SITES)]
    entries: Annotated[tuple[BundleEntry, ...], Meta(max_length=MAX_BUNDLE_ENTRIES)]

    @property
    def size_bytes(self) -> int:
        """What all entries take together."""
        return sum(entry.size_bytes for entry in self.entries)


class BundleRequest(Part, frozen=True, kw_only=True):
    """What a bundle is asked for.

    `valid_for_s` is how long it must be good at least. `since` is the manifest of an earlier bundle, which is taken
    to have arrived. With `full`, nothing is left out that hosts are believed to hold, and nothing is a delta.
    `make` has the deltas made that are worth it and not there yet.
    """

    sites: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_BUNDLE_SITES)]
    valid_for_s: Annotated[float, Meta(ge=3600, le=180 * 86400)] = 60 * 86400.0
    since: JsonEnvelope | None = None
    full: bool = False
    make: bool = True
    max_size_bytes: Annotated[int, Meta(ge=1 << 16, le=MAX_NUMBER)] | None = None


class BundleAnswer(Part, frozen=True, kw_only=True):
    """Bundles to be put together: the signed manifest of each file, and its first entries' bytes in their order.

    The bytes of other entries are read by their digest. `pending` deltas are being made, which takes about `left_s`.
    `notes` are for people.
    """

    files: Annotated[tuple[JsonEnvelope, ...], Meta(min_length=1)]
    small: tuple[bytes, ...]
    pending: int = 0
    left_s: float = 0.0
    notes: tuple[str, ...] = ()


class CarriedReports(Part, frozen=True, kw_only=True):
    """Reports of one host that were carried by hand, in rising order."""

    reports: Annotated[tuple[JsonEnvelope, ...], Meta(min_length=1, max_length=MAX_SYNC_REPORTS)]


class CarriedAnswer(Part, frozen=True, kw_only=True):
    """Whose reports they were, how many of them were new, and up to which sequence the hub has that host's now."""

    host: str
    site: str
    taken: int
    acknowledged: int


class ImportView(Part, frozen=True, kw_only=True):
    """What came of a bundle at a host.

    `copied` of the `files` for this host were not here yet. `fresh`: it brings another desired state than the host
    has. `doubts` are releases that the bundle does not prove, and why.
    """

    bundle: str
    part: int
    parts: int
    site: str
    host: str
    generation: int
    fresh: bool
    releases: tuple[str, ...]
    expires_at: Instant
    files: int
    copied: int
    copied_bytes: int
    doubts: dict[str, str]
    agent: Takeover = "was not asked"


class SiteImportView(Part, frozen=True, kw_only=True):
    """What came of a bundle for one site below a relay. `fresh`: the relay does not hold this generation yet."""

    generation: int
    fresh: bool


class RelayImportView(Part, frozen=True, kw_only=True):
    """What came of a bundle at a relay.

    `refused` says of the sites that it does not take why not. `copied` of the `files` for hosts of its sites were not
    here yet. `doubts` are releases that the bundle does not prove, and why.
    """

    bundle: str
    part: int
    parts: int
    relay: str
    sites: dict[str, SiteImportView]
    refused: dict[str, str]
    expires_at: Instant
    files: int
    copied: int
    copied_bytes: int
    doubts: dict[str, str]
    process: Takeover = "was not asked"
