"""What a rollout comes to be when little was said of it: its name, its waves, and who would be in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from skerry.cli.text import plural
from skerry.kit.errors import Rejected
from skerry.kit.ids import split_release_name
from skerry.rollout.facts import SiteFact
from skerry.rollout.reading import read_waves
from skerry.rollout.waves import draw_members
from skerry.spec.api import SiteView
from skerry.spec.rollout import RolloutSpec

SHOWN = 8


class WaveMembers(msgspec.Struct, frozen=True):
    """A wave, its members, and how many of them may be at work at a time."""

    name: str
    members: tuple[str, ...]
    away: int
    max_in_flight: int


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
    """Return the waves of a rollout over the sites it selects; waves by selector are not told apart here."""
    free = {site.name: SiteFact(name=site.name, reachable=site.presence == "online") for site in sites}
    plans = read_waves(spec)
    found: list[WaveMembers] = []
    for number, plan in enumerate(plans):
        last = number == len(plans) - 1
        drawn = list(free.values()) if last else draw_members(name, number, plan, free.values(), len(sites))
        for site in drawn:
            del free[site.name]
        members = tuple(sorted(site.name for site in drawn))
        away = sum(not site.reachable for site in drawn)
        found.append(WaveMembers(plan.name, members, away, max(1, plan.max_in_flight.of(len(members)))))
    return found


def wave_lines(waves: Sequence[WaveMembers]) -> Iterator[str]:
    """Say who is in which wave, for people."""
    yield "Waves, if it began now:"
    for wave in waves:
        named = ", ".join(wave.members[:SHOWN]) or "nobody is left"
        more = f" and {len(wave.members) - SHOWN} more" if len(wave.members) > SHOWN else ""
        limit = f", {wave.max_in_flight} at a time" if wave.max_in_flight < len(wave.members) else ""
        away = f", {wave.away} of them away now" if wave.away else ""
        yield f"  {wave.name}: {plural(len(wave.members), 'site')}{limit}{away}: {named}{more}"
