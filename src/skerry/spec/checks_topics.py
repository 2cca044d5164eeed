"""Checks of the topics of an application."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.kit.quantities import parse_duration, parse_size
from skerry.spec.application import ApplicationSpec
from skerry.spec.checks_files import check_unique
from skerry.spec.problems import Problem
from skerry.spec.topic_patterns import covers
from skerry.spec.topics import TopicsSpec

MAX_UPLINK_BYTES = 256 << 10


def check_topics(application: ApplicationSpec) -> Iterator[Problem]:
    """Yield what is wrong with the topics, and whether nobody in the application can reach the bus."""
    topics = application.topics
    yield from check_unique("spec.topics.publish", "topic", topics.publish)
    yield from check_unique("spec.topics.subscribe", "topic", topics.subscribe)
    yield from _check_uplink(topics)
    yield from _check_downlink(topics)
    reaching = [c for c in application.components if c.image is None or c.container.network != "none"]
    if topics.is_used and not reaching:
        hint = "leave network: none out of the container of a component"
        yield Problem("spec.topics", "no component can reach the bus: none has a network", hint)


def _check_uplink(topics: TopicsSpec) -> Iterator[Problem]:
    yield from check_unique("spec.topics.uplink", "topic", (one.topic for one in topics.uplink))
    for index, one in enumerate(topics.uplink):
        path = f"spec.topics.uplink[{index}]"
        if not any(covers(pattern, one.topic) for pattern in (*topics.publish, *topics.subscribe)):
            hint = "write it into publish or subscribe as well: what others say is not this application's to send"
            yield Problem(f"{path}.topic", f"the application neither publishes nor reads {one.topic}", hint)
        if not 1 <= parse_duration(one.window) <= 3600:
            yield Problem(f"{path}.window", "must be between 1s and 1h")
        if not 1 <= parse_size(one.max_size) <= MAX_UPLINK_BYTES:
            yield Problem(
                f"{path}.max_size", "must be between 1 byte and 256KiB, which is what a broker takes"
            )


def _check_downlink(topics: TopicsSpec) -> Iterator[Problem]:
    yield from check_unique("spec.topics.downlink", "topic", topics.downlink)
    for index, pattern in enumerate(topics.downlink):
        if not any(covers(read, pattern) for read in topics.subscribe):
            hint = "write it into subscribe as well"
            path = f"spec.topics.downlink[{index}]"
            yield Problem(path, f"the application does not read {pattern}", hint)
