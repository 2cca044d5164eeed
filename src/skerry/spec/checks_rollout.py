"""Checks of a Rollout's waves: sites none would reach, waves that nobody is left for, names that are there twice."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.spec.problems import Problem
from skerry.spec.rollout import RolloutSpec


def check_rollout_waves(spec: RolloutSpec) -> Iterator[Problem]:
    """Yield what is wrong with a rollout's waves; selectors are checked where the sites are known."""
    names: set[str] = set()
    share = 0.0
    for number, wave in enumerate(spec.waves):
        where = f"spec.waves[{number}]"
        for field in ("size", "max_in_flight"):
            if _is_nothing(str(getattr(wave, field))):
                yield Problem(f"{where}.{field}", "nobody would get it", "at least 1, or a share above 0%")
        if wave.max_in_flight_per and _is_nothing(wave.max_in_flight_per.limit):
            hint = "at least 1, or a share above 0%"
            yield Problem(f"{where}.max_in_flight_per.limit", "nobody would get it", hint)
        if wave.name and wave.name in names:
            yield Problem(f"{where}.name", f"there is a wave {wave.name} before it", "give each its own name")
        names.add(wave.name)
        if share >= 100 and not wave.sites:
            hint = "shares are of all selected sites, and a wave's members are not in those before it"
            yield Problem(f"{where}.size", "the waves before it have all sites already", hint)
        if not wave.sites and wave.size.endswith("%"):
            share += float(wave.size[:-1])
    if spec.waves and (spec.waves[-1].size != "100%" or spec.waves[-1].sites):
        hint = "end with a wave of size 100% and no selector: it has whoever is left"
        yield Problem(f"spec.waves[{len(spec.waves) - 1}]", "sites would be left out, for ever", hint)


def _is_nothing(amount: str) -> bool:
    return amount.endswith("%") and float(amount[:-1]) == 0
