"""Topic patterns: what one matches, what two have in common, and what one covers.

The meaning is that of MQTT 3.1.1, section 4.7, for the patterns that `skerry.spec.topics` allows: `+` is exactly one
level, `#` is the level before it and everything below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from skerry.spec.topic_patterns import covers

__all__ = [
    "common_pattern",
    "covers",
    "joined_pattern",
    "match_any_topic",
    "match_topic",
    "patterns_meet",
]


def match_topic(pattern: str, topic: str) -> bool:
    """Tell whether a pattern takes in a topic, which has no wildcards."""
    return patterns_meet(pattern, topic)


def match_any_topic(patterns: Iterable[str], topic: str) -> bool:
    """Tell whether one of several patterns takes in a topic."""
    return any(match_topic(pattern, topic) for pattern in patterns)


def patterns_meet(one: str, other: str) -> bool:
    """Tell whether there is a topic that both patterns take in."""
    return _meet(one.split("/"), other.split("/"))


def common_pattern(one: str, other: str) -> str | None:
    """Return the pattern of exactly the topics that both take in; None where there are none."""
    if not patterns_meet(one, other):
        return None
    left, right = one.split("/"), other.split("/")
    levels: list[str] = []
    for index in range(max(len(left), len(right))):
        mine = left[index] if index < len(left) else ""
        others = right[index] if index < len(right) else ""
        if mine == "#":
            # The level before it and all below: what the other goes on with, if it does.
            return "/".join([*levels, *right[index:]])
        if others == "#":
            return "/".join([*levels, *left[index:]])
        levels.append(others if mine == "+" else mine)
    return "/".join(levels)


def joined_pattern(one: str, other: str) -> str:
    """Return a pattern that takes in all that either does; both have to begin with the same level."""
    left, right = one.split("/"), other.split("/")
    levels: list[str] = []
    for mine, others in zip(left, right, strict=False):
        if "#" in (mine, others):
            return "/".join([*levels, "#"])
        levels.append(mine if mine == others else "+")
    return "/".join(levels if len(left) == len(right) else [*levels, "#"])


def _meet(one: Sequence[str], other: Sequence[str]) -> bool:
    for index in range(max(len(one), len(other))):
        left = one[index] if index < len(one) else ""
        right = other[index] if index < len(other) else ""
        if "#" in (left, right):
            # It stands for no level as well, so whatever the other goes on with is taken in.
            return True
        if not left or not right:
            return False
        if left != right and "+" not in (left, right):
            return False
    return True
