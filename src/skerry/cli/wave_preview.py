"""What a rollout comes to be when little was said of it: its name, its waves, and who would be in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from skerry.cli.text import plural
from skerry.kit.errors import Rejected
from skerry.kit.ids import split_release_name
from skerry.matching.selector import Selector, parse_selector
from skerry.rollout.facts import SiteFact
from skerry.rollout.reading import read_waves, waves_of
from skerry.rollout.waves import draw_members
from skerry.spec.api import SiteView
from skerry.spec.rollout import RolloutSpec

SHOWN = 8


class WaveMembers(msgspec.Struct, frozen=True):
    """A wave, its members, and how many of them may be at work at a time.

    `selector` is the one that took them, empty where the wave takes any; `matching` counts the sites that no wave
    before it has and that it may take. `shared` names, by member, later waves whose selectors match it as well: it is
    in the first that takes it. `approval` says whether somebody has to let it begin.
    """

    name: str
    members: tuple[str, ...]
    away: int
    max_in_flight: int
    selector: str = ""
    matching: int = 0
    shared: Mapping[str, tuple[str, ...]] = {}
    approval: str = "auto"


def wave_sizes(sizes: str, soak: str) -> list[dict[str, str]]:
    """Return waves of these sizes, as a document has them; none where nothing was said, for the default ones."""
    if not sizes and not soak:
        return []
    more = {"soak": soak} if soak else {}
    return [{"size": size.strip()} | more for size in (sizes or "1%,10%,100%").split(",")]


def default_name(release: str) -> str:
    """Return the name of a release's rollout when none is given: always the same, so that a repeated start is one.

    Raises:
        Rejected: `release` is no release's name.
    """
    parts = split_release_name(release)
    if parts is None:
        hint = "write APPLICATION@VERSION; `skerry get releases` lists them"
        raise Rejected("release.name", f"not a release: {release[:120]!r}", hint=hint)
    return re.sub(r"[^a-z0-9]+", "-", f"{parts[0]}-{parts[1]}".lower())[:63].strip("-")


def preview_waves(name: str, spec: RolloutSpec, sites: Sequence[SiteView]) -> list[WaveMembers]:
    """Return the waves of a rollout over the sites it selects, if it began now.

    Raises:
        Rejected: a wave's selector cannot be read.
    """
    written, plans = waves_of(spec), read_waves(spec)
    selectors = [parse_selector(wave.sites) if wave.sites else Selector() for wave in written]
    free = {site.name: _site_fact(site, selectors) for site in sites}
    found: list[WaveMembers] = []
    for number, plan in enumerate(plans):
        last = number == len(plans) - 1
        matching = sum(bool(site.waves & 1 << number) for site in free.values())
        drawn = list(free.values()) if last else draw_members(name, number, plan, free.values(), len(sites))
        for site in drawn:
            del free[site.name]
        members = tuple(sorted(site.name for site in drawn))
        later = [n for n in range(number + 1, len(plans)) if written[n].sites and written[number].sites]
        shared = {
            site.name: tuple(plans[n].name for n in later if site.waves & 1 << n)
            for site in sorted(drawn, key=lambda site: site.name)
        }
        found.append(
            WaveMembers(
                name=plan.name,
                members=members,
                away=sum(not site.reachable for site in drawn),
                max_in_flight=max(1, plan.max_in_flight.of(len(members))),
                selector=written[number].sites,
                matching=matching,
                shared={name: waves for name, waves in shared.items() if waves},
                approval=written[number].approval,
            )
        )
    return found


def _site_fact(site: SiteView, selectors: Sequence[Selector]) -> SiteFact:
    bits = sum(1 << n for n, of in enumerate(selectors) if of.matches(site.name, site.labels))
    return SiteFact(name=site.name, reachable=site.presence == "online", waves=bits, labels=site.labels)


def wave_lines(waves: Sequence[WaveMembers], limit: int = SHOWN) -> Iterator[str]:
    """Say who is in which wave and by which selector, for people; so many of each by name, 0 for all."""
    yield "Waves, if it began now:"
    for wave in waves:
        limited = f", {wave.max_in_flight} at a time" if wave.max_in_flight < len(wave.members) else ""
        away = f", {wave.away} of them away now" if wave.away else ""
        selected = f" of {wave.matching} that match {wave.selector}" if wave.selector else ""
        approval = ", when it is approved" if wave.approval == "manual" else ""
        who = _named(wave.members, limit) or "nobody is left"
        yield f"  {wave.name}: {plural(len(wave.members), 'site')}{selected}{limited}{away}{approval}: {who}"
        if wave.shared:
            later = sorted({name for names in wave.shared.values() for name in names})
            what = f"match {', '.join(later)} as well, and are in the first wave that takes them"
            yield f"    {_named(tuple(wave.shared), limit)} {what}"


def _named(names: Sequence[str], limit: int) -> str:
    more = f" and {len(names) - limit} more" if limit and len(names) > limit else ""
    return ", ".join(names[: limit or None]) + more
