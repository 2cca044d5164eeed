"""Who reads what an application of a site publishes, and who publishes what it reads: joined by topics alone.

A bus joins the applications of one host, and links between hosts join the buses of a site.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from skerry.matching.topics import patterns_meet
from skerry.spec.api_topics import TopicFlow
from skerry.spec.topics import TopicsSpec


class TopicUse(msgspec.Struct, frozen=True):
    """What an application of a site does on the bus, and on which hosts; without any it may come to every host."""

    application: str
    topics: TopicsSpec
    hosts: frozenset[str] = frozenset()


def plan_flows(site: str, uses: Sequence[TopicUse], *, of: str = "") -> tuple[TopicFlow, ...]:
    """Return each pattern with who is at its other end, and what is wrong where nobody is; `of` is one application."""
    flows: list[TopicFlow] = []
    for use in uses:
        if of in ("", use.application):
            flows.extend(_flow(site, use, pattern, uses, publishes=True) for pattern in use.topics.publish)
            flows.extend(_flow(site, use, pattern, uses, publishes=False) for pattern in use.topics.subscribe)
    return tuple(flows)


def _flow(site: str, use: TopicUse, pattern: str, uses: Iterable[TopicUse], *, publishes: bool) -> TopicFlow:
    # What only the application itself is at the other end of joins it with nobody.
    met = [
        other
        for other in uses
        if other.application != use.application and _meets(other, pattern, reads=publishes)
    ]
    others = tuple(sorted({other.application for other in met}))
    near = {other.application for other in met if _near(use, other)}
    return TopicFlow(
        site=site,
        application=use.application,
        does="publishes" if publishes else "reads",
        topic=pattern,
        joined=others,
        linked=tuple(name for name in others if name not in near),
        trouble="" if others else ("nobody reads it" if publishes else "nobody publishes it"),
    )


def _meets(other: TopicUse, pattern: str, *, reads: bool) -> bool:
    patterns = other.topics.subscribe if reads else other.topics.publish
    return any(patterns_meet(pattern, one) for one in patterns)


def _near(one: TopicUse, other: TopicUse) -> bool:
    return not one.hosts or not other.hosts or bool(one.hosts & other.hosts)
