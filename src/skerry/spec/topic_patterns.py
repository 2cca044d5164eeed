"""What one topic pattern covers, for checks of documents; `skerry.matching.topics` has all else about patterns."""

from __future__ import annotations


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every topic that `narrow` takes in is one of `wide` too."""
    levels, others = wide.split("/"), narrow.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(others):
            return False
        if others[index] == "#" or (level not in ("+", others[index])):
            return False
    return len(levels) == len(others)
