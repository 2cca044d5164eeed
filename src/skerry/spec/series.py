"""Which series of a Prometheus endpoint a metric is made of: `http_requests_total{status=~"5.."}`.

Rules: a name, and matchers of labels in braces: `=`, `!=`, `=~`, `!~`. A pattern is text in which `.` stands for one
character, `.*` for any number, and `|` parts alternatives; it matches a whole value, in time that is bounded by the
lengths of both. Other signs of regular expressions are refused. A label that a series lacks is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SeriesText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        description='a metric of the endpoint, such as http_requests_total{status=~"5.."}',
    ),
]
Operator = Literal["=", "!=", "=~", "!~"]

MAX_MATCHERS = 16

_name_re = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_matcher_re = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\\n]|\\.)*)"\s*(,|\}|$)')
_RUN = ".*"
_special = frozenset("^$+?()[]{}*\\")
_escapes = {"n": "\n", '"': '"', "\\": "\\"}


class Matcher(msgspec.Struct, frozen=True):
    """What a label's value has to be, or must not be."""

    label: str
    operator: Operator
    value: str

    def holds(self, value: str) -> bool:
        """Tell whether it holds for a value."""
        same = value == self.value if self.operator in ("=", "!=") else _matches(self.value, value)
        return same if self.operator in ("=", "=~") else not same


class SeriesSelector(msgspec.Struct, frozen=True):
    """A metric's name and matchers of its labels; all have to hold."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a series of that name has the labels."""
        return all(matcher.holds(labels.get(matcher.label, "")) for matcher in self.matchers)


@lru_cache(maxsize=256)
def parse_series(text: str) -> SeriesSelector:
    """Return what a text selects.

    Raises:
        ValueError: it is not understood; the message says where.
    """
    found = _name_re.match(text)
    if found is None:
        raise ValueError("expected a metric's name, such as http_requests_total")
    rest = text[found.end() :].strip()
    if not rest:
        return SeriesSelector(found[0])
    if not rest.startswith("{") or not rest.endswith("}"):
        raise ValueError(f"expected labels in braces after {found[0]}, got {rest[:40]!r}")
    return SeriesSelector(found[0], _parse_matchers(rest))


def unescape(text: str) -> str:
    """Return a quoted text without its escapes; an unknown one stands for itself."""
    return re.sub(r"\\(.)", lambda found: _escapes.get(found[1], found[0]), text) if "\\" in text else text


def _parse_matchers(text: str) -> tuple[Matcher, ...]:
    matchers: list[Matcher] = []
    place, end = 1, len(text) - 1
    while place < end and text[place:end].strip():
        found = _matcher_re.match(text, place)
        if found is None or not found[4]:
            raise ValueError(f'expected LABEL="VALUE", got {text[place:end].strip()[:40]!r}')
        value, operator = unescape(found[3]), msgspec.convert(found[2], Operator)
        if operator in ("=~", "!~") and (wrong := sorted(_special & set(value.replace(".*", "")))):
            raise ValueError(f"{wrong[0]} has no meaning here: a pattern is text with . and .* and |")
        matchers.append(Matcher(found[1], operator, value))
        place = found.end() if found[4] == "," else end
        if found[4] == "}" and found.end() != len(text):
            raise ValueError(f"nothing is expected after the braces, got {text[found.end() :][:40]!r}")
    if len(matchers) > MAX_MATCHERS:
        raise ValueError(f"{len(matchers)} labels are more than {MAX_MATCHERS}")
    return tuple(matchers)


def _matches(pattern: str, value: str) -> bool:
    return any(_fits(_tokens(part), value) for part in pattern.split("|"))


def _tokens(part: str) -> Sequence[str]:
    return re.findall(r"\.\*|.", part, re.DOTALL)


def _fits(tokens: Sequence[str], value: str) -> bool:
    """Match wildcards with one way back, to the last `.*`: no pattern takes longer than both lengths multiplied."""
    place = at = 0
    back: tuple[int, int] | None = None
    while at < len(value):
        if place < len(tokens) and tokens[place] == _RUN:
            back, place = (place, at), place + 1
        elif place < len(tokens) and tokens[place] in (".", value[at]):
            place, at = place + 1, at + 1
        elif back is not None:
            back = (back[0], back[1] + 1)
            place, at = back[0] + 1, back[1]
        else:
            return False
    return all(part == _RUN for part in tokens[place:])
