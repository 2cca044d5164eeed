"""Where the applications of one site go: asks the matching core, and names what hosts need to know of each other.

- `each`: every host gets it, also one that it does not fit: that host refuses it and says why. Only hosts that
  `placement.requires` excludes, and those that lack a binding it needs, do not get it; one that has it keeps it until
  another release comes.
- `one` and `count`: only the hosts in the order get it. Silence of a host changes nothing: it keeps its rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from skerry.kit.editions import plain_release
from skerry.matching.bindings import NoBinding, match_bindings
from skerry.matching.placement import Placed, SiteState, Unplaced, place_site
from skerry.matching.requirements import match_requirements
from skerry.ports.hub_store import HostRecord
from skerry.spec.application import Placement
from skerry.spec.binding import BindingSpec
from skerry.spec.desired import DesiredState, Neighbour, SitePlacement, SitePolicy
from skerry.spec.release import Release

REASONS_SHOWN = 3


class SiteWork(msgspec.Struct, frozen=True, kw_only=True):
    """A site's assigned releases by application, its hosts as last reported, and what it was issued before."""

    releases: Mapping[str, Release]
    hosts: Sequence[HostRecord]
    policy: SitePolicy
    before: DesiredState | None = None
    bindings: tuple[BindingSpec, ...] = ()


class PlacedWork(msgspec.Struct, frozen=True, kw_only=True):
    """The applications of every host, the placements, and the neighbours where there is more than one host."""

    applications: dict[str, list[str]]
    placements: dict[str, SitePlacement] = {}
    neighbours: dict[str, Neighbour] = {}


def place_work(work: SiteWork) -> PlacedWork:
    """Return where everything goes."""
    applications: dict[str, list[str]] = {host.name: [] for host in work.hosts}
    placements: dict[str, SitePlacement] = {}
    if not any(restricts(release) for release in work.releases.values()):
        everywhere = {host: sorted(work.releases) for host in applications}
        return PlacedWork(applications=everywhere, neighbours=_neighbours(work.hosts))
    state = SiteState(
        hosts={host.name: host.facts for host in work.hosts},
        policy=work.policy,
        failed={host.name: _failed(host) for host in work.hosts},
        bindings=work.bindings,
        absent={host.name: absent_on(host) for host in work.hosts},
    )
    previous = work.before.placements if work.before else {}
    for name, answer in _placed(work.releases, state, previous).items():
        release = work.releases[name]
        if placement_of(release).mode == "each":
            hosts = [host.name for host in work.hosts if _gets_each(release, host, work)]
        else:
            placements[name] = _site_placement(answer, placement_of(release))
            hosts = list(placements[name].hosts)
        for host in hosts:
            applications[host].append(name)
    return PlacedWork(applications=applications, placements=placements, neighbours=_neighbours(work.hosts))


def _placed(
    releases: Mapping[str, Release], state: SiteState, previous: Mapping[str, SitePlacement]
) -> dict[str, Placed | Unplaced]:
    """Place applications where their devices are; one whose devices are nowhere stays, and waits for them there."""
    found = place_site(releases, state, previous=previous)
    if not any(state.absent.values()) or not any(isinstance(one, Unplaced) for one in found.values()):
        return found
    anyhow = place_site(releases, msgspec.structs.replace(state, absent={}), previous=previous)
    return {name: anyhow[name] if isinstance(one, Unplaced) else one for name, one in found.items()}


def absent_on(host: HostRecord) -> frozenset[str]:
    """Return the bindings whose devices a host says are not there."""
    seen = host.observed.bindings.items() if host.observed else ()
    return frozenset(name for name, view in seen if view.state == "absent")


def placement_of(release: Release) -> Placement:
    """Return how a release wants to be placed."""
    return release.application.spec.placement


def restricts(release: Release) -> bool:
    """Tell whether an application may not go to every host; most go, and a fleet is issued fast."""
    placement = placement_of(release)
    if release.application.spec.needs:
        return True
    return placement.mode != "each" or placement.requires != type(placement.requires)()


def _gets_each(release: Release, host: HostRecord, work: SiteWork) -> bool:
    joined = match_bindings(release.application.spec.needs, work.bindings, host=host.name)
    excluded = match_requirements(placement_of(release).requires, host.facts)
    if not excluded and not isinstance(joined, NoBinding):
        return True
    held = work.before.hosts.get(host.name, ()) if work.before else ()
    return any(plain_release(assignment.release) == release.name for assignment in held)


def _site_placement(answer: Placed | Unplaced, wanted: Placement) -> SitePlacement:
    if isinstance(answer, Placed):
        return answer.placement
    # What a host has (`, has 3 GiB left`) changes all the time and would make a new desired state each time.
    why = [
        f"{host}: {'; '.join(reason.partition(', has ')[0] for reason in reasons[:REASONS_SHOWN])}"
        for host, reasons in sorted(answer.reasons.items())
    ]
    count = wanted.count if wanted.mode == "count" else 1
    return SitePlacement(count=count, hosts=(), split=wanted.split, why=("no host fits", *why))


def _neighbours(hosts: Sequence[HostRecord]) -> dict[str, Neighbour]:
    """Return the hosts of a site for each other: they share what they fetch, and take turns."""
    if len(hosts) < 2:
        return {}
    found: dict[str, Neighbour] = {}
    for host in hosts:
        fact = host.facts.get("lan_address")
        address = fact.value if fact is not None and isinstance(fact.value, str) else ""
        # A host whose address is not known yet is there all the same: it knows those of others, and says its own.
        found[host.name] = Neighbour(address=address if len(address) <= 256 else "", sign_key=host.sign_key)
    return found


def _failed(host: HostRecord) -> Mapping[str, str]:
    """Return what failed its self-test on a host, over all its applications."""
    views = host.observed.applications.values() if host.observed else ()
    return {key: reason for view in views for key, reason in view.failed_variants.items()}
