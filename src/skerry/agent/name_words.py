"""What hosts of a site tell each other of names: all of it when it changes, and with each heartbeat a part again.

A heartbeat has little room, so that many names go in several. One that is lost on the way comes again in its turn. What
a host said last stands until it says something else, or belongs to the site no more: also while it is silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from skerry.matching.names import MAX_WORDS
from skerry.spec.names import NamesPart, NameWord

PART_BYTES = 480
"""Of JSON: beside everything else, with names of hosts and sites as long as they may be."""
MAX_PARTS = 128


def split_words(words: Sequence[NameWord]) -> tuple[NamesPart, ...]:
    """Return what a host says in as many parts as it takes; it takes one to say that there is nothing."""
    mark = hashlib.sha256(msgspec.json.encode(tuple(words))).hexdigest()[:8]
    groups: list[list[NameWord]] = [[]]
    size = 0
    for word in words[:MAX_WORDS]:
        more = len(msgspec.json.encode(word)) + 1
        if groups[-1] and (size + more > PART_BYTES or len(groups[-1]) == 64):
            groups.append([])
            size = 0
        groups[-1].append(word)
        size += more
    groups = groups[:MAX_PARTS]
    return tuple(NamesPart(mark, number, len(groups), tuple(group)) for number, group in enumerate(groups))


class Saying:
    """What is to be said to one neighbour: everything that it was not told yet, then one part after another."""

    def __init__(self) -> None:
        self._mark = ""
        self._turn = 0

    def due(self, parts: tuple[NamesPart, ...]) -> tuple[NamesPart, ...]:
        """Return the parts to be said now; none where there was never anything to say."""
        if not parts:
            return ()
        if parts[0].mark != self._mark:
            self._mark = parts[0].mark
            return parts
        self._turn = (self._turn + 1) % len(parts)
        return (parts[self._turn],)


class Hearing:
    """What one neighbour said: the newest set of which every part has come."""

    def __init__(self) -> None:
        self.words: tuple[NameWord, ...] = ()
        self.whole = False
        self._mark = ""
        self._parts: dict[int, tuple[NameWord, ...]] = {}

    def take(self, part: NamesPart) -> bool:
        """Take a part; tell whether the words have changed by it."""
        if part.parts > MAX_PARTS or part.part >= part.parts:
            return False
        if part.mark != self._mark:
            self._mark, self._parts = part.mark, {}
        self._parts[part.part] = part.words
        if len(self._parts) < part.parts:
            return False
        words = tuple(word for number in sorted(self._parts) for word in self._parts[number])[:MAX_WORDS]
        before, self.words, self.whole = self.words, words, True
        return words != before
