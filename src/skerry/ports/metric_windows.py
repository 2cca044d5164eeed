"""MetricWindows: what hosts measured of applications, part of what the hub remembers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.spec.metrics import MetricWindow


class HostWindow(msgspec.Struct, frozen=True):
    """A window, and the host and site where it was measured."""

    host: str
    site: str
    window: MetricWindow


class MetricWindows(Protocol):
    """The methods of `HubStore` about metrics."""

    def put_metric_windows(
        self, host: str, site: str, windows: Sequence[MetricWindow], *, sequence: int, at: datetime
    ) -> None:
        """Store a host's windows, each in the place of the same one told under a lower sequence, and of no other.

        Grouped with other callers into one commit.
        """
        ...

    def metric_windows(
        self,
        application: str,
        releases: Sequence[str],
        *,
        since: datetime | None = None,
        sites: Sequence[str] | None = None,
    ) -> Sequence[HostWindow]:
        """Return windows that end after `since`, of all sites or some, by site, host and time."""
        ...

    def trim_metric_windows(
        self, before: datetime, *, keep: int, needed: Collection[str] = (), most: int = 5000
    ) -> int:
        """Forget windows received `before`, and those beyond `keep`, about `most` at a time; return how many went.

        Of those beyond, the ones of releases that nobody judges by go first, those that are not `needed`, and among
        their like the longest-held. Call it again until nothing goes.
        """
        ...
