"""`Rollout`: which release goes to which sites, and what counts as proof."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Document, Duration, Part

ReleaseName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?@[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$",
        description="a release such as meter-reader@1.1.0",
    ),
]


class HealthGate(Part, frozen=True, kw_only=True):
    """When a host takes a release for good: all components ready within `deadline`, and so for `soak`."""

    deadline: Duration = "5m"
    soak: Duration = "30s"


class RolloutSpec(Part, frozen=True, kw_only=True):
    """One wave over the selected sites; waves and evidence gates extend this type.

    Hosts fetch an `urgent` release before all others; their sites' link budgets hold for it, too. Before `begin_at` no
    site gets the release. With `prefetch`, hosts of sites that do not get it yet fetch its files, after all else.
    """

    release: ReleaseName
    sites: Annotated[str, Meta(min_length=1, max_length=1024, description="label selector; * for every site")]
    health: HealthGate = HealthGate()
    urgent: bool = False
    begin_at: Annotated[datetime, Meta(tz=True)] | None = None
    prefetch: bool = False


class Rollout(Document, frozen=True, kw_only=True, tag="Rollout"):
    """A rollout as people write it; it cannot be changed once it has started."""

    spec: RolloutSpec
