"""What comes of a simulation. No figure depends on the machine: the same documents and seed give the same result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.spec.api_rollout import RolloutState
from skerry.testing.simulation.sites import SimulatedSite

SHARES = (50, 90, 99, 100)


class Milestones(msgspec.Struct, frozen=True, kw_only=True):
    """After how many seconds so many percent of some sites ran the release for good; None when they never did."""

    sites: int
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    p100_s: float | None


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. `inputs` is a digest of all that was handed to it, and so of all decisions before it."""

    at_s: float
    inputs: str
    state: RolloutState
    why: str
    effects: int
    wave: str = ""


class GroupResult(msgspec.Struct, frozen=True, kw_only=True):
    """A group of sites: how many run the release for good in the end, how many ever started it, and what it fetched."""

    name: str
    sites: int
    succeeded: int
    exposed: int
    fetched_bytes: int
    p50_s: float | None
    p100_s: float | None


class RelayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The sites whose label `relay` names a relay: what they fetched from it, and what it fetched for all of them."""

    name: str
    sites: int
    handed_down_bytes: int
    fetched_bytes: int


class WaveResult(msgspec.Struct, frozen=True, kw_only=True):
    """A wave: when it began and passed, in seconds."""

    name: str
    state: str
    why: str
    members: int
    began_s: float | None
    passed_s: float | None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """How many sites were in each state, as the hub knew."""

    at_s: float
    states: Mapping[str, int]


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a simulation.

    Milestones go by what sites run; `reachable` are those whose link was up at some time. `exposed` sites ever started
    the release, `bad` ones are those where it could not work. `decisions` are those that did or changed something, of
    `decisions_made`. `digest` is one of all decisions. A `forecast` is of a fleet as a hub knows it.
    """

    rollout: str
    release: str
    seed: int
    forecast: bool
    assumptions: tuple[str, ...]
    starts_at: datetime
    duration_s: float
    state: RolloutState
    why: str
    ended_s: float | None
    sites: int
    hosts: int
    all: Milestones
    reachable: Milestones
    exposed: int
    bad: int
    exposed_bad: int
    fetched_bytes: int
    states: Mapping[str, int]
    groups: tuple[GroupResult, ...]
    relays: tuple[RelayResult, ...] = ()
    waves: tuple[WaveResult, ...]
    decisions_made: int
    decisions: tuple[DecisionRecord, ...]
    digest: str
    timeline: tuple[Moment, ...]
    events: int


def milestones_of(sites: Sequence[SimulatedSite], begin_s: float) -> Milestones:
    """Return when shares of these sites ran the release, counted from `begin_s`."""
    done = sorted(site.done_at_s - begin_s for site in sites if site.done_at_s is not None)

    def at(percent: int) -> float | None:
        needed = -(-len(sites) * percent // 100)
        return round(done[needed - 1], 3) if sites and needed <= len(done) else None

    p50, p90, p99, p100 = (at(share) for share in SHARES)
    return Milestones(sites=len(sites), p50_s=p50, p90_s=p90, p99_s=p99, p100_s=p100)


def groups_of(sites: Sequence[SimulatedSite], begin_s: float) -> tuple[GroupResult, ...]:
    """Return what came of each group, in the order in which they first appear."""
    groups: dict[str, list[SimulatedSite]] = {}
    for site in sites:
        groups.setdefault(site.plan.group, []).append(site)
    results: list[GroupResult] = []
    for name, members in groups.items():
        times = milestones_of(members, begin_s)
        results.append(
            GroupResult(
                name=name,
                sites=len(members),
                succeeded=sum(site.done_at_s is not None for site in members),
                exposed=sum(site.exposed_at_s is not None for site in members),
                fetched_bytes=sum(site.fetched_bytes.total() for site in members),
                p50_s=times.p50_s,
                p100_s=times.p100_s,
            )
        )
    return tuple(results)


def relays_of(sites: Sequence[SimulatedSite]) -> tuple[RelayResult, ...]:
    """Return what each relay hands down, and takes from above: of each release as much as the site that took most."""
    behind: dict[str, list[SimulatedSite]] = {}
    for site in sites:
        if name := site.plan.labels.get("relay"):
            behind.setdefault(name, []).append(site)
    return tuple(
        RelayResult(
            name=name,
            sites=len(members),
            handed_down_bytes=sum(site.fetched_bytes.total() for site in members),
            fetched_bytes=_one_copy(members),
        )
        for name, members in sorted(behind.items())
    )


def _one_copy(sites: Sequence[SimulatedSite]) -> int:
    """Return how many bytes of each release are needed for all of these sites, together."""
    copies: Counter[str] = Counter()
    for site in sites:
        copies |= site.fetched_bytes
    return copies.total()
