"""What the operator API says of deliveries: what changed between releases, and what bringing one to sites takes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Part


class FieldChange(Part, frozen=True, kw_only=True):
    """A field of a release's documents that is not as it was; absent on one side: empty."""

    path: str
    before: str = ""
    after: str = ""


class FileChange(Part, frozen=True, kw_only=True):
    """A file that came, went or changed, and what bringing it takes each way, as far as that is known.

    `owner` is `bundle NAME`, `image NAME (VARIANT)` or `model NAME (VARIANT)`. A size of None is not known: no delta
    was made, or it is still being made (`pending`).
    """

    owner: str
    path: str
    change: Literal["added", "removed", "changed"]
    size_bytes: int
    compressed_bytes: int | None = None
    delta_bytes: int | None = None
    pending: bool = False


class VariantCost(Part, frozen=True, kw_only=True):
    """What one owner's files take together: in full, and the cheapest way that is known."""

    owner: str
    files: int
    full_bytes: int
    size_bytes: int
    pending: int = 0


class ReleaseDiff(Part, frozen=True, kw_only=True):
    """What changed from one release to another. `left_s` is how long the pending deltas take, roughly."""

    old: str
    new: str
    fields: tuple[FieldChange, ...]
    files: tuple[FileChange, ...]
    variants: tuple[VariantCost, ...]
    unchanged_files: int
    pending: int = 0
    left_s: float = 0.0


class DeltaOrder(Part, frozen=True, kw_only=True):
    """Which deltas are to be made: those from a release, or those that hosts of selected sites would ask for."""

    old: Annotated[str, Meta(max_length=256)] = ""
    selector: Annotated[str, Meta(max_length=4096)] = "*"


class DeltaOrdered(Part, frozen=True, kw_only=True):
    """How many deltas that are, how many of them are still to be made, and how long that takes, roughly."""

    deltas: int
    pending: int
    left_s: float


class SiteTraffic(Part, frozen=True, kw_only=True):
    """What a site's hosts would fetch of a release, and for how long.

    `duration_s` is by the site's link budget if nothing else flows and nothing of it was used; None where no rate is
    stated. `never` when the budget does not let it through in the foreseeable future. `unmatched` hosts would get
    nothing.
    """

    site: str
    hosts: int
    size_bytes: int
    full_bytes: int
    pending: int = 0
    duration_s: float | None = None
    never: bool = False
    unmatched: int = 0


class TrafficPreview(Part, frozen=True, kw_only=True):
    """What bringing a release to selected sites takes over their links, the slowest first."""

    release: str
    selector: str
    sites: tuple[SiteTraffic, ...]
    size_bytes: int
    full_bytes: int
    pending: int = 0
    left_s: float = 0.0
    oldest_facts_at: datetime | None = None


class FileDelivery(Part, frozen=True, kw_only=True):
    """How one file would come to a host: the sizes of its ways as far as they are known, and which is the cheapest.

    `bases` is how many blobs the delta would be made from, 0 where nothing on the host is related.
    """

    owner: str
    path: str
    size_bytes: int
    way: Literal["delta", "compressed", "full"]
    way_bytes: int
    bases: int = 0
    compressed_bytes: int | None = None
    delta_bytes: int | None = None
    pending: bool = False


class HostDelivery(Part, frozen=True, kw_only=True):
    """What a host would fetch of a release: `before` is what it runs; `here` files are there already."""

    host: str
    release: str
    before: str
    files: tuple[FileDelivery, ...]
    here: int
    size_bytes: int
    full_bytes: int
    reasons: tuple[str, ...] = ()
    as_of: datetime | None = None
