"""What the hub says of names: where each leads at its site, and why."""

from __future__ import annotations

import msgspec

from skerry.spec.api_ingress import RouteTrace
from skerry.spec.names import SiteName
from skerry.spec.report import Instant


class NameStanding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A name of a site, as its hosts reported, the oldest `as_of`. `answered_by` are the hosts that have a DNS."""

    site: str
    as_of: Instant | None = None
    name: SiteName
    answered_by: tuple[str, ...] = ()


class NameExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a name leads at one site and why, from what its hosts reported: the oldest report is `as_of`."""

    name: str
    site: str
    as_of: Instant | None = None
    trace: RouteTrace
