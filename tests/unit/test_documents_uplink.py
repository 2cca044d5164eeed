"""What is wrong with what an application sends to the hub or takes from it."""

from __future__ import annotations

import pytest

from skerry.spec.application import ApplicationSpec, Component
from skerry.spec.checks_topics import check_topics
from skerry.spec.topics import TopicsSpec, UplinkSpec

BOX = Component(name="box", command=("run",))


def problems(topics: TopicsSpec) -> list[str]:
    spec = ApplicationSpec(version="1.0.0", components=(BOX,), topics=topics)
    return [f"{one.path}: {one.message}" for one in check_topics(spec)]


def test_what_an_application_publishes_or_reads_may_go_up() -> None:
    rules = (UplinkSpec(topic="plant/line1/#"), UplinkSpec(topic="orders"))
    assert problems(TopicsSpec(publish=("plant/#",), subscribe=("orders",), uplink=rules)) == []


@pytest.mark.parametrize(
    ("topics", "problem"),
    (
        (
            TopicsSpec(publish=("plant/a",), uplink=(UplinkSpec(topic="plant/+"),)),
            "spec.topics.uplink[0].topic: the application neither publishes nor reads plant/+",
        ),
        (
            TopicsSpec(publish=("a",), uplink=(UplinkSpec(topic="a", window="2h"),)),
            "spec.topics.uplink[0].window: must be between 1s and 1h",
        ),
        (
            TopicsSpec(publish=("a",), uplink=(UplinkSpec(topic="a", max_size="1MiB"),)),
            "spec.topics.uplink[0].max_size: must be between 1 byte and 256KiB, which is what a broker takes",
        ),
        (
            TopicsSpec(publish=("a",), downlink=("a",)),
            "spec.topics.downlink[0]: the application does not read a",
        ),
    ),
)
def test_each_problem_is_named(topics: TopicsSpec, problem: str) -> None:
    assert problems(topics) == [problem]


def test_a_topic_has_one_rule() -> None:
    twice = TopicsSpec(publish=("a",), uplink=(UplinkSpec(topic="a"), UplinkSpec(topic="a")))
    assert [one for one in problems(twice) if one.startswith("spec.topics.uplink")]
