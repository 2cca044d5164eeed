"""Checks of the topics of an application."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.spec.application import ApplicationSpec
from skerry.spec.checks_files import check_unique
from skerry.spec.problems import Problem


def check_topics(application: ApplicationSpec) -> Iterator[Problem]:
    """Yield what is wrong with the topics, and whether nobody in the application can reach the bus."""
    topics = application.topics
    yield from check_unique("spec.topics.publish", "topic", topics.publish)
    yield from check_unique("spec.topics.subscribe", "topic", topics.subscribe)
    reaching = [c for c in application.components if c.image is None or c.container.network != "none"]
    if topics.is_used and not reaching:
        hint = "leave network: none out of the container of a component"
        yield Problem("spec.topics", "no component can reach the bus: none has a network", hint)
