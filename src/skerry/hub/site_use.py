"""What a site runs, for those who add their part to its DesiredState."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from skerry.ports.hub_store import HostRecord, SiteRecord
from skerry.spec.desired import DesiredState
from skerry.spec.release import Release


class SiteUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a site runs: its hosts, their applications, those applications' releases, and what was issued before.

    Who holds an application back notes in `troubles` why, by application.
    """

    site: SiteRecord
    hosts: Sequence[HostRecord]
    applications: Mapping[str, Sequence[str]]
    releases: Mapping[str, Release]
    before: DesiredState | None
    troubles: dict[str, str] = msgspec.field(default_factory=dict[str, str])


Addition = Callable[[SiteUse, DesiredState], DesiredState]
"""Returns the DesiredState with a part of its own.

It runs in a thread, at every look at a site: what has not changed has to come out the same, or a new generation is
issued.
"""
