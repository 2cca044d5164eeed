"""`Site`: one place with hosts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Document, Duration, Part

VariableName = Annotated[
    str,
    Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="lower-case letters, digits and _, a letter first"),
]


class SiteSpec(Part, frozen=True, kw_only=True):
    """What is particular to a site.

    `offline_tolerance` is how long its silence is ordinary; only what is shown depends on it.
    `variables` fill `${site.NAME}` in commands and environments. `host_network` allows containers to use
    their host's own network.
    """

    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    offline_tolerance: Duration = "5m"
    host_network: bool = False
    variables: dict[VariableName, Annotated[str, Meta(max_length=4096)]] = {}


class Site(Document, frozen=True, kw_only=True, tag="Site"):
    """A site as people write it; its labels are what selectors match."""

    spec: SiteSpec = SiteSpec()
