"""Fills references of configurations with what the hub knows of a site and a host, and says which it cannot fill.

Rules: what is filled in is never looked at again, and may have no reference in it, so that nobody who may set a
variable can name another's secret. What only the host knows is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from skerry.spec.configuration import Values
from skerry.spec.facts import HostFacts
from skerry.spec.references import fill_text, find_references, is_hubs, map_texts, walk_texts


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a site and one of its hosts; without a `host`, what is a host's is not asked for.

    `kept` are facts as they were when the configuration was made first: they count before the host's own, so that a
    fact that changes all the time restarts nothing.
    """

    site: str
    labels: Mapping[str, str] = {}
    variables: Mapping[str, str] = {}
    host: str = ""
    facts: HostFacts = {}
    kept: Mapping[str, str] = {}


class Unfilled(msgspec.Struct, frozen=True):
    """A reference that has no value: where it stands, its name, and why."""

    path: str
    name: str
    why: str


class Filled(msgspec.Struct, frozen=True):
    """The values, the facts that were filled in, and what could not be."""

    values: Values
    facts: Mapping[str, str] = {}
    unfilled: tuple[Unfilled, ...] = ()


def fill_values(values: Values, known: Known) -> Filled:
    """Return values with all references filled that the hub knows."""
    used: dict[str, str] = {}
    unfilled: list[Unfilled] = []
    answers: dict[str, str | None] = {}
    for path, text in walk_texts(values):
        for name in find_references(text):
            if not is_hubs(name) or (name.startswith("host.") and not known.host):
                continue
            answer = _answer(name, known)
            if answer is None or "${" in answer:
                why = f"there is no {_what(name)}" if answer is None else "its value has a reference in it"
                unfilled.append(Unfilled(path, name, why))
                continue
            answers[name] = answer
            if name.startswith("host.fact."):
                used[name.removeprefix("host.fact.")] = answer
    filled: Any = map_texts(values, lambda text: fill_text(text, answers.get, unescape=False))
    return Filled(filled, used, tuple(unfilled))


def uses_host(values: Values) -> bool:
    """Tell whether any reference is about the host."""
    return any(name.startswith("host.") for _, text in walk_texts(values) for name in find_references(text))


def _answer(name: str, known: Known) -> str | None:
    if name == "site.name":
        return known.site
    if name == "host.name":
        return known.host
    if name.startswith("site.label."):
        return known.labels.get(name.removeprefix("site.label."))
    if name.startswith("host.fact."):
        fact = name.removeprefix("host.fact.")
        if fact in known.kept:
            return known.kept[fact]
        stated = known.facts.get(fact)
        return _text(stated.value) if stated is not None else None
    return known.variables.get(name.removeprefix("site."))


def _text(value: object) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            return None


def _what(name: str) -> str:
    if name.startswith("host.fact."):
        return f"fact {name.removeprefix('host.fact.')}"
    if name.startswith("site.label."):
        return f"label {name.removeprefix('site.label.')}"
    return f"variable {name.removeprefix('site.')}"
