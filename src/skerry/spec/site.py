"""`Site`: one place with hosts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from skerry.kit.quantities import RATE_PATTERN
from skerry.spec.binding import MAX_BINDINGS, BindingSpec
from skerry.spec.metadata import Document, Duration, Part, Size
from skerry.spec.topics import BrokerKind

VariableName = Annotated[
    str,
    Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="lower-case letters, digits and _, a letter first"),
]

RateText = Annotated[
    str,
    Meta(
        pattern=RATE_PATTERN, max_length=32, description="a rate such as 64KiB/s or 512kbit/s, unlimited or 0"
    ),
]
Rate = RateText | Literal[0]
Cron = Annotated[str, Meta(max_length=100, description="five fields of cron, such as 0 22 * * MON-FRI")]
CarryOver = Annotated[
    str,
    Meta(
        pattern=r"^([0-9]{1,4}%|[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB))$",
        max_length=32,
        description="a share of the budget such as 50%, or a size such as 100MiB",
    ),
]


NetworkText = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f.:]+/[0-9]{1,3}$",
        max_length=64,
        description="a network such as 10.20.0.0/16 or fd00:20::/48",
    ),
]


class LinkWindow(Part, frozen=True, kw_only=True):
    """From each time of `cron`, in the site's time zone, for `duration`: another rate."""

    cron: Cron
    duration: Duration
    rate: Rate = "unlimited"


class SiteLink(Part, frozen=True, kw_only=True):
    """What downloads to the site may take of its link; each of its hosts has an equal share.

    `rate` holds at all times but in `windows`; of several that are open the first listed counts. `per_day` and
    `per_month` are budgets of bytes that begin anew at midnight and on the first of the month; what was not
    used is saved up to `carry_over`. Where `metered` is true, a host that says its link is metered (the fact
    `link.metered`) keeps to `metered_rate` and `metered_per_day` as well.
    """

    rate: Rate = "unlimited"
    windows: Annotated[tuple[LinkWindow, ...], Meta(max_length=16)] = ()
    per_day: Size | None = None
    per_month: Size | None = None
    carry_over: CarryOver = "0%"
    metered: bool = False
    metered_rate: Rate = "unlimited"
    metered_per_day: Size | None = None


class SwitchWindow(Part, frozen=True, kw_only=True):
    """From each time of `cron`, in the site's time zone, for `duration`: releases may be switched."""

    cron: Cron
    duration: Duration


class SiteDisk(Part, frozen=True, kw_only=True):
    """What downloads may take of the disk of each of the site's hosts.

    A download that would leave less than `keep_free` does not begin. `blobs` is how much all that was fetched may
    take at the most: what runs, what ran before, what is being fetched, and what deltas are made from.
    """

    keep_free: Size | None = None
    blobs: Size | None = None


class SiteSpec(Part, frozen=True, kw_only=True):
    """What is particular to a site.

    `broker` is the message broker that its hosts run for applications with topics: nats where nothing is said.
    `offline_tolerance` is how long its silence is ordinary; after it rollouts offer it nothing until it is heard of.
    The site's hosts may issue certificates for addresses in `networks`, and for none elsewhere but their own loopback.
    `variables` fill `${site.NAME}` in commands and environments. `host_network` allows containers to use
    their host's own network. `link` bounds what downloads take of the site's link, and `disk` what they
    take of each host's disk. Where there are `switch_windows`, a host fetches, lays out and tests a new
    release at any time, and switches to it in one of them only; to one of an urgent rollout at once. A site that
    is `reached_by` bundles has no link: a wave offers it its release although nothing is heard of it, and does not wait
    for it; what became of it counts when its reports are carried back. `bindings` are what is there: applications
    that need one are joined to it.
    """

    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    offline_tolerance: Duration = "5m"
    reached_by: Literal["link", "bundle"] = "link"
    networks: Annotated[tuple[NetworkText, ...], Meta(max_length=32)] = ()
    host_network: bool = False
    link: SiteLink = SiteLink()
    disk: SiteDisk = SiteDisk()
    switch_windows: Annotated[tuple[SwitchWindow, ...], Meta(max_length=16)] = ()
    broker: BrokerKind | None = None
    variables: dict[VariableName, Annotated[str, Meta(max_length=4096)]] = {}
    bindings: Annotated[tuple[BindingSpec, ...], Meta(max_length=MAX_BINDINGS)] = ()


class Site(Document, frozen=True, kw_only=True, tag="Site"):
    """A site as people write it; its labels are what selectors match."""

    spec: SiteSpec = SiteSpec()
