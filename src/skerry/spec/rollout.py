"""`Rollout`: which release goes to which sites, in which waves, and what counts as proof."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.gates import MAX_GATES, GateSpec
from skerry.spec.metadata import Document, Duration, Part

ReleaseName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?@[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$",
        description="a release such as meter-reader@1.1.0",
    ),
]
SitesSelector = Annotated[str, Meta(max_length=1024, description="label selector; * for every site")]
Amount = Annotated[
    str,
    Meta(
        pattern=r"^([1-9][0-9]{0,6}|(100|[1-9]?[0-9])(\.[0-9]{1,2})?%)$",
        description="a number of sites, such as 5, or a share of them, such as 10%",
    ),
]
Share = Annotated[
    str,
    Meta(pattern=r"^(100|[1-9]?[0-9])(\.[0-9]{1,2})?%$", description="a share, such as 95%"),
]

MAX_WAVES = 50


class HealthGate(Part, frozen=True, kw_only=True):
    """When a host takes a release for good: all components ready within `deadline`, and so for `soak`."""

    deadline: Duration = "5m"
    soak: Duration = "30s"


class GroupLimit(Part, frozen=True, kw_only=True):
    """Of sites with the same value of a label no more than so many at a time; sites without it are a group, too."""

    label: Annotated[str, Meta(min_length=1, max_length=128)]
    limit: Amount = "1"


class Wave(Part, frozen=True, kw_only=True):
    """Some of the sites, which get the release at a time. Its members are those that no wave before it has.

    `size` counts, or is a share of, the sites that the rollout selects, or that `sites` selects of them. At most
    `max_in_flight` of the members are at work at a time, and of each group as `max_in_flight_per` says. The wave has
    passed when all reachable members succeeded, or after `deadline` at least the `quorum` of them, and that was so
    for `soak`. Members that are not reachable are its tail: they follow later.
    """

    name: Annotated[str, Meta(max_length=63)] = ""
    sites: SitesSelector = ""
    size: Amount = "100%"
    max_in_flight: Amount = "100%"
    max_in_flight_per: GroupLimit | None = None
    soak: Duration = "5m"
    approval: Literal["auto", "manual"] = "auto"
    quorum: Share = "100%"
    deadline: Duration = "24h"


DEFAULT_WAVES = (
    Wave(name="canary", size="1%"),
    Wave(name="early", size="10%", max_in_flight="50%"),
    Wave(name="rest", size="100%", max_in_flight="25%"),
)
"""What a rollout does that names no waves. A share is at least one site."""


class RolloutSpec(Part, frozen=True, kw_only=True):
    """The release, the selected sites, and the waves in which they get it.

    A site has failed when one of its hosts refused the release and went back, or when it fits none. When more sites
    have failed than `failure_budget` allows, `on_failure` says what becomes of the others: `rollback` takes the release
    back from all that have it, `pause` offers it to nobody until a person resumes, `continue` goes on.

    Hosts fetch an `urgent` release before all others, and switch to it outside the site's windows; link budgets hold
    for it, and so does a hold that somebody at the site has set. Before `begin_at` no site gets the release. With
    `prefetch`, hosts of sites that do not get it yet fetch its files, after all else.

    `gates` say which figures of the release may become how much worse than before. Each host judges them while the
    release is on trial there, with or without the hub.
    """

    release: ReleaseName
    sites: Annotated[str, Meta(min_length=1, max_length=1024, description="label selector; * for every site")]
    waves: Annotated[tuple[Wave, ...], Meta(max_length=MAX_WAVES)] = ()
    on_failure: Literal["rollback", "pause", "continue"] = "rollback"
    failure_budget: Annotated[
        str,
        Meta(
            pattern=r"^([0-9]{1,7}|(100|[1-9]?[0-9])(\.[0-9]{1,2})?%)$",
            description="how many sites, or which share of them, may fail, such as 0 or 2%",
        ),
    ] = "0"
    health: HealthGate = HealthGate()
    gates: Annotated[tuple[GateSpec, ...], Meta(max_length=MAX_GATES)] = ()
    urgent: bool = False
    begin_at: Annotated[datetime, Meta(tz=True)] | None = None
    prefetch: bool = False


class Rollout(Document, frozen=True, kw_only=True, tag="Rollout"):
    """A rollout as people write it; it cannot be changed once it has started."""

    spec: RolloutSpec
