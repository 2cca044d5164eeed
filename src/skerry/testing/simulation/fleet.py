"""The sites of a simulation, each with all that chance decides of it beforehand: its hosts, what goes wrong there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from skerry.kit.quantities import parse_duration, parse_rate, parse_size
from skerry.matching.answering import Previewer, PreviewHost
from skerry.spec.desired import OpenWindow, SitePolicy
from skerry.spec.release import Release
from skerry.spec.site import SiteSpec
from skerry.testing.simulation.documents import Behaviour, Fault, ScenarioSpec, SimulatedFleetSpec, SiteGroup
from skerry.testing.simulation.profiles import LinkProfile


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A host: how the release behaves there, or the `problem` for which it never fits; rates are means per week."""

    name: str
    behaviour: Behaviour = "healthy"
    problem: str = ""
    skew_s: float = 0.0
    crashes_per_week: float = 0.0
    power_cuts_per_week: float = 0.0


class SitePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A site. `rate` is in bytes per second, None without limit; `size_bytes` is what it fetches of the release."""

    name: str
    group: str
    labels: Mapping[str, str]
    hosts: tuple[HostPlan, ...]
    link: LinkProfile = "always-on"
    rate: float | None = None
    latency_s: float = 0.1
    size_bytes: int = 0
    time_zone: str = "UTC"
    tolerance_s: float = 300.0
    windows: tuple[OpenWindow, ...] = ()
    previous: str = ""


def plan_fleet(
    spec: SimulatedFleetSpec,
    scenario: ScenarioSpec,
    *,
    sites: int,
    seed: int,
    release: Release | None = None,
    previous: str,
) -> list[SitePlan]:
    """Return so many sites of a fleet. With a `release`, hosts whose facts are stated get variants that fit them."""
    previewer = Previewer(release) if release is not None else None
    plans: list[SitePlan] = []
    for group, count in zip(spec.groups, _counts(spec.groups, sites), strict=True):
        answer = _answer(previewer, group)
        for number in range(count):
            name = f"{group.name}-{number + 1:05}"
            rng = Random(f"{seed}/{name}")
            labels = group.labels | {
                key: values[number % len(values)] for key, values in group.spread.items()
            }
            plan = SitePlan(
                name=name,
                group=group.name,
                labels={"group": group.name, "link": group.link, "hardware": group.hardware} | labels,
                hosts=tuple(_host(name, n, group, scenario, rng, answer[0]) for n in range(group.hosts)),
                link=group.link,
                latency_s=parse_duration(group.latency),
                size_bytes=answer[1] or parse_size(scenario.release.size),
                previous=previous,
            )
            plans.append(as_written(plan, group.site, rate=group.rate))
    return plans


def as_written(plan: SitePlan, site: SiteSpec, *, rate: str) -> SitePlan:
    """Return a site with what its document says: its windows, its time, and the slower of its link and its budget."""
    rates = [found for text in (rate, str(site.link.rate)) if (found := parse_rate(text))]
    return msgspec.structs.replace(
        plan,
        rate=min(rates, default=None),
        time_zone=site.time_zone,
        tolerance_s=parse_duration(site.offline_tolerance),
        windows=tuple(
            OpenWindow(cron=w.cron, duration_s=parse_duration(w.duration)) for w in site.switch_windows
        ),
    )


def match_facts(previewer: Previewer, host: PreviewHost) -> tuple[str, int]:
    """Return why a release fits a host not at all, and the bytes of the variants it gets."""
    answer = previewer.answer(host)
    if answer.reasons:
        return "; ".join(answer.reasons), 0
    return "", previewer.missing_bytes(answer.chosen, frozenset())[0]


def behaviour_of(faults: Sequence[Fault], hardware: str, rng: Random) -> Behaviour:
    """Return how the release behaves on a host; each fault takes its share of the hosts, whatever the others take."""
    behaviour: Behaviour = "healthy"
    for fault in faults:
        struck = rng.random() * 100 < float(fault.share[:-1])
        if struck and behaviour == "healthy" and fault.hardware in ("", hardware):
            behaviour = fault.how
    return behaviour


def _answer(previewer: Previewer | None, group: SiteGroup) -> tuple[str, int]:
    if previewer is None or not group.facts:
        return "", 0
    site = group.site
    policy = SitePolicy(host_network=site.host_network)
    host = PreviewHost(site=group.name, facts=group.host_facts, policy=policy, bindings=site.bindings)
    return match_facts(previewer, host)


def _host(
    site: str, number: int, group: SiteGroup, scenario: ScenarioSpec, rng: Random, problem: str
) -> HostPlan:
    skew_s = parse_duration(group.clock_skew)
    return HostPlan(
        name=f"{site}-h{number + 1}",
        behaviour=behaviour_of(scenario.release.faults, group.hardware, rng),
        problem=problem,
        skew_s=rng.uniform(-skew_s, skew_s),
        crashes_per_week=group.crashes_per_week,
        power_cuts_per_week=group.power_cuts_per_week,
    )


def _counts(groups: Sequence[SiteGroup], sites: int) -> list[int]:
    """Return how many sites each group has: cut where the sums of shares end, so that all together are `sites`."""
    ends = [round(sites * share / 100) for share in itertools.accumulate(float(g.share[:-1]) for g in groups)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
