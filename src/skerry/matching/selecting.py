"""Checks of the selectors of a rollout against the sites there are: what cannot be read, and what matches nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skerry.kit.errors import Rejected
from skerry.matching.selector import Selector, parse_selector
from skerry.spec.problems import Problem
from skerry.spec.rollout import RolloutSpec


def check_selected(spec: RolloutSpec, sites: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    """Yield what is wrong with a rollout's selectors, and with those of its waves; `sites` are labels by name."""
    selected: Mapping[str, Mapping[str, str]] = {}
    try:
        selected = _matching(parse_selector(spec.sites), sites)
    except Rejected as error:
        yield Problem("spec.sites", error.message, error.hint)
    else:
        if not selected:
            hint = "skerry get sites shows names and labels"
            yield Problem("spec.sites", f"no site matches {spec.sites!r}", hint)
    for number, wave in enumerate(spec.waves):
        where = f"spec.waves[{number}].sites"
        try:
            of = parse_selector(wave.sites) if wave.sites else Selector()
        except Rejected as error:
            yield Problem(where, error.message, error.hint)
            continue
        if selected and not _matching(of, selected):
            hint = "a wave's members are sites that the rollout selects"
            yield Problem(where, f"no selected site matches {wave.sites!r}", hint)


def _matching(selector: Selector, sites: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {name: labels for name, labels in sites.items() if selector.matches(name, labels)}
