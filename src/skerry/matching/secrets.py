"""Which value of a secret a site gets: the one whose scope says most about it.

A site's own value before those of label selectors, a selector of more terms before one of fewer, and the value for all
last. Two selectors of as many terms that both match leave open what is meant; that is said, and nobody guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from skerry.kit.errors import Rejected
from skerry.kit.ids import is_name
from skerry.matching.selector import Selector, parse_selector
from skerry.spec.secret import Scope

_ALL, _SITE = 0, 1 << 30


class ScopeChoice(msgspec.Struct, frozen=True):
    """The scope whose values a site gets, None without one or when `tied` ones leave it open; and why."""

    scope: Scope | None
    why: tuple[str, ...] = ()
    tied: tuple[Scope, ...] = ()


def parse_scope(*, site: str = "", selector: str = "") -> Scope:
    """Return the scope of what a person wrote; neither is all sites.

    Raises:
        Rejected: both were written, it is no name, or no selector.
    """
    if site and selector:
        raise Rejected("secret.scope", "a value is for a site or for a selector", hint="write one of them")
    if site:
        if not is_name(site):
            raise Rejected("secret.scope", f"not a site's name: {site[:80]!r}")
        return Scope(kind="site", of=site)
    if not selector or not parse_selector(selector).terms:
        return Scope()
    return Scope(kind="selector", of=",".join(sorted(part.strip() for part in split_terms(selector))))


def split_terms(selector: str) -> list[str]:
    """Return the terms of a selector as they are written."""
    parts, depth, part = list[str](), 0, ""
    for character in selector:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part]


def scope_text(scope: Scope) -> str:
    """Return a scope in words."""
    match scope.kind:
        case "all":
            return "all sites"
        case "site":
            return f"site {scope.of}"
        case "selector":
            return f"sites {scope.of}"


def choose_scope(scopes: Iterable[Scope], site: str, labels: Mapping[str, str]) -> ScopeChoice:
    """Return which of the scopes that have values holds for a site."""
    there = sorted(set(scopes), key=lambda scope: (-_weight(scope), scope.of))
    fitting = [scope for scope in there if _matches(scope, site, labels)]
    why = [f"{scope_text(scope)}: does not match" for scope in there if scope not in fitting]
    if not fitting:
        return ScopeChoice(None, tuple(why))
    best = [scope for scope in fitting if _weight(scope) == _weight(fitting[0])]
    why += [f"{scope_text(scope)}: matches, and says less" for scope in fitting if scope not in best]
    if len(best) > 1:
        told = " and ".join(scope_text(scope) for scope in best)
        return ScopeChoice(None, (f"{told} match alike", *why), tuple(best))
    return ScopeChoice(best[0], (f"{scope_text(best[0])}: matches, and says most", *why))


def find_ties(
    scopes: Sequence[Scope], sites: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[Scope, ...]]:
    """Return the sites, of those given with their labels, for which scopes leave open what is meant."""
    own = {scope.of for scope in scopes if scope.kind == "site"}
    selectors = {scope for scope in scopes if scope.kind == "selector"}
    # A site's own value is before all others, and there is one for all: only selectors can be tied.
    open_ = {name: labels for name, labels in sites.items() if name not in own} if len(selectors) > 1 else {}
    choices = {name: choose_scope(selectors, name, labels) for name, labels in open_.items()}
    return {name: choice.tied for name, choice in choices.items() if choice.tied}


def _weight(scope: Scope) -> int:
    if scope.kind == "selector":
        return len(_selector(scope).terms)
    return _SITE if scope.kind == "site" else _ALL


def _matches(scope: Scope, site: str, labels: Mapping[str, str]) -> bool:
    if scope.kind == "site":
        return scope.of == site
    return scope.kind == "all" or _selector(scope).matches(site, labels)


def _selector(scope: Scope) -> Selector:
    return parse_selector(scope.of)
