"""Which topics go from one host of a site to another: those that one publishes and the other reads, and no others.

Every host works it out from the same signed document, so that both ends of a link mean the same; nothing is asked of,
or believed from, the other end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from skerry.matching.topics import common_pattern, covers, joined_pattern, patterns_meet
from skerry.spec.topics import HostTopics


class BusLinks(msgspec.Struct, frozen=True, kw_only=True):
    """A host's part: what it sends and what it takes, as patterns by the other host."""

    sends: Mapping[str, tuple[str, ...]] = {}
    takes: Mapping[str, tuple[str, ...]] = {}


def plan_links(host: str, buses: Mapping[str, HostTopics]) -> BusLinks:
    """Return a host's links with the others of its site; none where no topic is on both sides."""
    own = buses.get(host)
    if own is None:
        return BusLinks()
    others = {name: topics for name, topics in sorted(buses.items()) if name != host}
    sends = {name: crossing(own.publish, topics.subscribe) for name, topics in others.items()}
    takes = {name: crossing(topics.publish, own.subscribe) for name, topics in others.items()}
    return BusLinks(
        sends={name: patterns for name, patterns in sends.items() if patterns},
        takes={name: patterns for name, patterns in takes.items() if patterns},
    )


def crossing(published: Iterable[str], read: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of all topics that are in one of each; none is covered by another."""
    ends = tuple(read)
    met = {common for one in published for other in ends if (common := common_pattern(one, other))}
    return tuple(sorted(one for one in met if not any(covers(other, one) for other in met - {one})))


def apart(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of which no two have a topic in common, that take in at least what these do.

    A broker may hand on a message once for each subscription that it is in, and these get it once.
    """
    found: list[str] = []
    waiting = sorted(set(patterns))
    while waiting:
        pattern = waiting.pop()
        met = next((one for one in found if patterns_meet(one, pattern)), None)
        if met is None:
            found.append(pattern)
        else:
            found.remove(met)
            waiting.append(joined_pattern(met, pattern))
    return tuple(sorted(found))
