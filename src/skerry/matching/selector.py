"""Label selectors: `region=north,tier!=test,line in (a,b),!canary`, or `*` for everything.

Grammar: terms joined by commas, all of which must hold. `key=value` and `key==value`, `key!=value`,
`key in (a,b)`, `key notin (a,b)`, `key` (the label is there), `!key` (it is not). `name=...` matches the
document's name. `!=` and `notin` also hold when the label is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from skerry.kit.errors import Rejected

_KEY = r"[A-Za-z0-9][A-Za-z0-9_./-]*"
_VALUE = r"[A-Za-z0-9_./-]*"
_equal_re = re.compile(rf"^({_KEY})\s*(=|==|!=)\s*({_VALUE})$")
_set_re = re.compile(rf"^({_KEY})\s+(in|notin)\s*\(([^()]*)\)$")
_exists_re = re.compile(rf"^(!?)\s*({_KEY})$")
_comma_re = re.compile(r",(?![^()]*\))")


class Term(msgspec.Struct, frozen=True):
    """One condition on one label."""

    key: str
    operator: Literal["in", "notin", "exists", "absent"]
    values: frozenset[str] = frozenset()


class Selector(msgspec.Struct, frozen=True):
    """Conditions that must all hold; none at all selects everything."""

    terms: tuple[Term, ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether a document of this name and these labels is selected."""
        return all(_holds(term, name if term.key == "name" else labels.get(term.key)) for term in self.terms)


def parse_selector(text: str) -> Selector:
    """Return the selector of a text.

    Raises:
        Rejected: the text is empty or not a selector (`selector.malformed`).
    """
    if text.strip() == "*":
        return Selector()
    return Selector(tuple(_parse_term(part.strip()) for part in _comma_re.split(text)))


def _parse_term(text: str) -> Term:
    if match := _equal_re.match(text):
        return Term(match[1], "notin" if match[2] == "!=" else "in", frozenset([match[3]]))
    if match := _set_re.match(text):
        values = frozenset(value.strip() for value in match[3].split(","))
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Term(match[1], "in" if match[2] == "in" else "notin", values)
    if match := _exists_re.match(text):
        return Term(match[2], "absent" if match[1] else "exists")
    hint = "write region=north, tier!=test, line in (a,b), canary, !canary, or * for every site"
    raise Rejected("selector.malformed", f"not a selector: {text[:200]!r}", hint=hint)


def _holds(term: Term, value: str | None) -> bool:
    match term.operator:
        case "in":
            return value in term.values
        case "notin":
            return value not in term.values
        case "exists":
            return value is not None
        case "absent":
            return value is None
