"""On which hosts of a site an application runs, and which stand by, in order.

Rules: a host in the order that still fits keeps its rank, whatever has become better elsewhere; what is free on
its disk does not count against it, and without facts it stays where it is. Everything else is placed where it
fits, by what the application prefers, nearness to and distance from others, the memory left there for each
application, and the name. What hosts that stand by would need is set aside as well, but only after everything
that runs has its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from skerry.kit.quantities import parse_duration
from skerry.matching.asking import device_needs
from skerry.matching.bindings import NoBinding, match_bindings
from skerry.matching.capacity import Need, lacks_of, need_of, room_of
from skerry.matching.devices import taken_by
from skerry.matching.releases import match_release
from skerry.matching.requirements import clauses_of, match_requirements, unmet_of
from skerry.spec.application import Placement
from skerry.spec.binding import BindingSpec
from skerry.spec.desired import SitePlacement, SitePolicy
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.release import Release

_BOUNDLESS = Fact(value=1 << 62, source="held already")


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts in order, the first `count` of them running it; `why` per host, also for those that do not fit."""

    placement: SitePlacement
    why: Mapping[str, str]

    @property
    def running(self) -> tuple[str, ...]:
        """The hosts whose turn it is when all are alive."""
        return self.placement.hosts[: self.placement.count]


class Unplaced(msgspec.Struct, frozen=True):
    """No host fits; the reasons per host."""

    reasons: Mapping[str, tuple[str, ...]]


class SiteState(msgspec.Struct, frozen=True, kw_only=True):
    """A site as it is placed on: its hosts' facts, and what other applications have there already.

    `reserved` and `taken` are by host, `present` names the hosts of each application, and `failed` is what
    failed its self-test, by host. `bindings` are those that the site offers,
    `absent` by host those whose device is not there. Nothing is changed in place.
    """

    hosts: Mapping[str, HostFacts]
    policy: SitePolicy = SitePolicy()
    reserved: Mapping[str, Need] = {}
    taken: Mapping[str, frozenset[str]] = {}
    present: Mapping[str, frozenset[str]] = {}
    failed: Mapping[str, Mapping[str, str]] = {}
    bindings: tuple[BindingSpec, ...] = ()
    absent: Mapping[str, frozenset[str]] = {}

    def with_application(self, release: Release, hosts: Iterable[str]) -> SiteState:
        """Return the state once an application has hosts: what it needs there is set aside."""
        reserved, taken = dict(self.reserved), dict(self.taken)
        need, devices = need_of(release.application.spec), device_needs(release)
        names = frozenset(hosts)
        for host in names:
            reserved[host] = reserved.get(host, Need()).plus(need)
            if devices:
                match = self._match(release, host)
                taken[host] = taken.get(host, frozenset()) | taken_by(devices, match)
        application = release.application.metadata.name
        present = {**self.present, application: self.present.get(application, frozenset()) | names}
        return msgspec.structs.replace(self, reserved=reserved, taken=taken, present=present)

    def _match(self, release: Release, host: str) -> Mapping[str, Mapping[str, str]]:
        taken = self.taken.get(host, frozenset())
        return match_release(release, self.hosts.get(host, {}), policy=self.policy, taken=taken).devices


def place_application(
    release: Release, state: SiteState, *, previous: SitePlacement | None = None
) -> Placed | Unplaced:
    """Return on which hosts of a site an application runs, and which stand by."""
    running = _place_running(release, state, previous)
    if isinstance(running, Unplaced):
        return running
    state = state.with_application(release, running.placement.hosts)
    return _add_standby(release, state, running, previous)


def place_site(
    releases: Mapping[str, Release],
    state: SiteState,
    *,
    previous: Mapping[str, SitePlacement] = {},
) -> dict[str, Placed | Unplaced]:
    """Place all applications of a site, by name; those that have a place already go first.

    What runs is placed for all of them before anything stands by, so that no stand-by takes what another
    application runs on.
    """
    order = sorted(releases, key=lambda name: (name not in previous, name))
    found: dict[str, Placed | Unplaced] = {}
    for name in order:
        found[name] = placed = _place_running(releases[name], state, previous.get(name))
        if isinstance(placed, Placed):
            state = state.with_application(releases[name], placed.placement.hosts)
    for name in order:
        placed = found[name]
        if isinstance(placed, Placed):
            whole = _add_standby(releases[name], state, placed, previous.get(name))
            state = state.with_application(
                releases[name], set(whole.placement.hosts) - set(placed.placement.hosts)
            )
            found[name] = whole
    return {name: found[name] for name in sorted(found)}


def fit_reasons(release: Release, state: SiteState, host: str, *, held: bool) -> tuple[str, ...]:
    """Return why a host does not fit; empty when it does. `held` says that it is in the order already."""
    facts = state.hosts.get(host, {})
    if not facts:
        return () if held else ("has not reported its facts yet",)
    if held and "disk.free_bytes" in facts:
        facts = {**facts, "disk.free_bytes": _BOUNDLESS}
    spec = release.application.spec
    reasons = [f"the placement needs {lack}" for lack in match_requirements(spec.placement.requires, facts)]
    joined = match_bindings(spec.needs, state.bindings, host=host)
    if isinstance(joined, NoBinding):
        reasons.extend(joined.reasons)
    else:
        gone = sorted({one.name for one in joined.bindings.values()} & state.absent.get(host, frozenset()))
        reasons.extend(f"the device of binding {name} is not there" for name in gone)
    match = match_release(
        release,
        facts,
        policy=state.policy,
        failed=state.failed.get(host, {}),
        taken=state.taken.get(host, frozenset()),
    )
    reasons.extend(match.reasons)
    left = room_of(facts).less(state.reserved.get(host, Need()))
    reasons.extend(lacks_of(need_of(spec), left))
    return tuple(reasons)


def _place_running(release: Release, state: SiteState, previous: SitePlacement | None) -> Placed | Unplaced:
    placement = release.application.spec.placement
    before = _still_here(previous, state)
    reasons = {host: fit_reasons(release, state, host, held=host in before) for host in sorted(state.hosts)}
    held = [host for host in before if not reasons[host]]
    fresh = [host for host in reasons if not reasons[host] and host not in before]
    ranked = [*held, *_ranked(release, state, fresh)]
    if not ranked:
        return Unplaced(reasons)
    wanted = _count(placement, len(ranked))
    running = ranked[:wanted]
    why = {host: f"does not fit: {'; '.join(lacks)}" for host, lacks in reasons.items() if lacks}
    for host in running:
        why[host] = "runs it: has its place" if host in held else f"runs it: {_praise(release, state, host)}"
    for host in ranked[wanted:]:
        why[host] = "fits, but is not needed"
    return Placed(placement=_site_placement(placement, wanted, running, why), why=why)


def _add_standby(
    release: Release, state: SiteState, placed: Placed, previous: SitePlacement | None
) -> Placed:
    """Return the placement with hosts that stand by, where there still is room for them."""
    placement = release.application.spec.placement
    running = placed.placement.hosts
    if placement.mode == "each" or not placement.standby:
        return placed
    before = [host for host in _still_here(previous, state) if host not in running]
    others = [host for host in sorted(state.hosts) if host not in running]
    reasons = {host: fit_reasons(release, state, host, held=host in before) for host in others}
    held = [host for host in before if not reasons[host]]
    fresh = _ranked(release, state, [h for h in others if not reasons[h] and h not in before])
    standby = [*held, *fresh][: placement.standby]
    why = dict(placed.why)
    for host in others:
        if reasons[host] and not why.get(host, "").startswith("does not fit"):
            why[host] = f"cannot stand by: {'; '.join(reasons[host])}"
    for rank, host in enumerate(standby, 1):
        why[host] = f"stands by, number {rank}"
    wanted = placed.placement.count
    return Placed(placement=_site_placement(placement, wanted, (*running, *standby), why), why=why)


def _still_here(previous: SitePlacement | None, state: SiteState) -> list[str]:
    return [host for host in previous.hosts if host in state.hosts] if previous else []


def _count(placement: Placement, fitting: int) -> int:
    match placement.mode:
        case "each":
            return fitting
        case "one":
            return 1
        case "count":
            return placement.count


def _site_placement(
    placement: Placement, count: int, hosts: Sequence[str], why: Mapping[str, str]
) -> SitePlacement:
    # Without figures: a free disk that shrinks must not make a new desired state.
    lines = list(_summary(placement, count, hosts))
    lines += [
        f"{host}: runs it" if rank < count else f"{host}: stands by, number {rank - count + 1}"
        for rank, host in enumerate(hosts)
    ]
    lines += [f"{host}: {text.partition(':')[0]}" for host, text in sorted(why.items()) if host not in hosts]
    return SitePlacement(
        count=count,
        hosts=tuple(hosts),
        takeover_s=parse_duration(placement.takeover),
        split=placement.split,
        why=tuple(lines),
    )


def _summary(placement: Placement, count: int, hosts: Sequence[str]) -> Iterator[str]:
    if len(hosts) < count:
        yield f"only {len(hosts)} of {count} hosts that are wanted fit"
    standing = max(len(hosts) - count, 0)
    if placement.mode != "each" and standing < placement.standby and len(hosts) >= count:
        yield f"only {standing} of {placement.standby} hosts that are to stand by fit"


def _ranked(release: Release, state: SiteState, hosts: Iterable[str]) -> list[str]:
    """Return new hosts, the best first; ties go by name."""
    return sorted(hosts, key=lambda host: (*_merits(release, state, host), host))


def _merits(release: Release, state: SiteState, host: str) -> tuple[int, int, int, int, int]:
    """Return what makes a host better than another, smaller being better."""
    placement = release.application.spec.placement
    here = {name for name, hosts in state.present.items() if host in hosts}
    facts = state.hosts[host]
    score = sum(wish.weight for wish in placement.prefer if not unmet_of(clauses_of(wish.when), facts))
    left = room_of(facts).less(state.reserved.get(host, Need())).memory_bytes or 0
    # Shared by those who are there and the newcomer: without this, a site's largest host would get everything
    # whose author states no requests.
    share = left // (len(here) + 1)
    return -score, -len(here & set(placement.near)), len(here & set(placement.apart)), -share, len(here)


def _praise(release: Release, state: SiteState, host: str) -> str:
    score, near, apart, _, applications = _merits(release, state, host)
    parts = [f"preferred with weight {-score}"] if score else []
    parts += [f"near {-near} of those it wants to be near"] if near else []
    parts += [f"beside {apart} of those it wants to be apart from"] if apart else []
    parts += [f"{applications} other application{'s' if applications != 1 else ''} there"]
    return f"fits best ({', '.join(parts)})"
