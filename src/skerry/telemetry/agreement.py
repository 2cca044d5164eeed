"""Whether two answers to one request say the same, by the rule that the application states.

Rules:
- A live answer that lacks what the rule is about (it is no JSON, nothing is at a path, the label has no largest entry)
  proves nothing: the two neither agree nor differ. Where the other answer alone lacks it, they differ. Apart from that
  each rule is symmetric.
- Numbers agree when they lie no further apart than the tolerance. A truth value is no number.
- Of several largest entries each is the top one: two answers agree when they share one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.spec.shadow import Shadow

Agreement = Literal["agrees", "differs", "incomparable"]

_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+|\*)\]")
_FAILED = 500
MAX_FOUND = 10_000
"""Values that one path may lead to: beyond it nothing is compared."""


class Answer(msgspec.Struct, frozen=True):
    """What a release answered: its status and its whole body."""

    status: int
    body: bytes = b""


class _Lacking(Exception):
    """An answer has not what the rule is about."""


def compare_answers(rule: Shadow, live: Answer, other: Answer) -> Agreement:
    """Return whether another release's answer says the same as the live one's.

    A live answer of 500 and above is no measure for anybody.
    """
    if live.status >= _FAILED:
        return "incomparable"
    if rule.compare == "exact":
        return "agrees" if live == other else "differs"
    if live.status // 100 != 2:
        return "agrees" if live.status == other.status else "differs"
    try:
        wanted = _read(rule, live.body)
    except _Lacking:
        return "incomparable"
    if other.status != live.status:
        return "differs"
    try:
        found = _read(rule, other.body)
    except _Lacking:
        return "differs"
    try:
        return "agrees" if _same(rule, wanted, found) else "differs"
    except RecursionError:  # nested deeper than anybody compares
        return "incomparable"


def find_values(path: str, document: Any) -> list[Any]:
    """Return what a path leads to in a JSON document, in its order.

    A subset of RFC 9535: names, indices from 0, and `[*]`. More than 10,000 values are none.
    """
    found: list[Any] = [document]
    for name, index in _STEP.findall(path):
        found = [below for one in found for below in _below(one, name, index)]
        if len(found) > MAX_FOUND:
            return []
    return found


def _below(value: Any, name: str, index: str) -> Sequence[Any]:
    if name:
        held: Mapping[str, Any] = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        return (held[name],) if name in held else ()
    items = cast(list[Any], value) if isinstance(value, list) else []  # type: ignore[redundant-cast]
    if index == "*":
        return items
    return items[int(index) : int(index) + 1]


def _read(rule: Shadow, body: bytes) -> list[Any]:
    """Return what the rule compares of an answer: values, or for `top-1` the sets of top entries."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise _Lacking from error
    if rule.compare == "top-1":
        labels = find_values(rule.label or "$", document)
        if not labels:
            raise _Lacking
        return [_top(one) for one in labels]
    if not rule.fields:
        return [document]
    each = [find_values(path, document) for path in rule.fields]
    if not all(each):
        raise _Lacking
    return each


def _top(value: Any) -> frozenset[str]:
    """Return the names of the largest entries: of an object its keys, of a list its places; a text is its own."""
    if isinstance(value, str):
        return frozenset((value,))
    entries: dict[str, Any] = {}
    if isinstance(value, dict):
        entries = cast(dict[str, Any], value)
    elif isinstance(value, list):
        items = cast(list[Any], value)  # type: ignore[redundant-cast]
        entries = {str(place): one for place, one in enumerate(items)}
    if not entries or not all(map(_is_number, entries.values())):
        raise _Lacking
    largest = max(entries.values())
    return frozenset(name for name, one in entries.items() if one == largest)


def _same(rule: Shadow, wanted: list[Any], found: list[Any]) -> bool:
    if rule.compare == "top-1":
        return len(wanted) == len(found) and all(
            one & other for one, other in zip(wanted, found, strict=True)
        )
    return _alike(wanted, found, rule.tolerance)


def _alike(one: Any, other: Any, tolerance: str) -> bool:
    if _is_number(one) and _is_number(other):
        return _near(one, other, tolerance)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        mine, theirs = cast(dict[str, Any], one), cast(dict[str, Any], other)
        return mine.keys() == theirs.keys() and all(_alike(mine[k], theirs[k], tolerance) for k in mine)
    if isinstance(one, list):
        items, others = cast(list[Any], one), cast(list[Any], other)  # type: ignore[redundant-cast]
        return len(items) == len(others) and all(
            _alike(a, b, tolerance) for a, b in zip(items, others, strict=True)
        )
    return bool(one == other)


def _near(one: float, other: float, tolerance: str) -> bool:
    if one == other:
        return True
    try:
        apart, larger = abs(one - other), max(abs(one), abs(other))
        allowed = float(tolerance[:-1]) / 100 * larger if tolerance.endswith("%") else float(tolerance)
    except OverflowError:  # an integer that no float holds
        return False
    return apart <= allowed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
