"""Who is joined to whom by topics, and whose end is loose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skerry.cli.explain_topics import topic_sentences
from skerry.matching.topic_flows import TopicUse, plan_flows
from skerry.matching.topics import match_topic
from skerry.spec.api_topics import SiteTopics
from skerry.spec.topics import TopicsSpec
from tests.unit.test_topics import TOPICS, patterns

some_patterns = st.lists(patterns(), max_size=3).map(tuple)


@st.composite
def uses(draw: st.DrawFn) -> list[TopicUse]:
    hosts = st.frozensets(st.sampled_from(("h1", "h2")))
    return [
        TopicUse(name, TopicsSpec(publish=draw(some_patterns), subscribe=draw(some_patterns)), draw(hosts))
        for name in ("one", "other")
    ]


@given(uses())
def test_an_end_is_loose_exactly_when_no_topic_reaches_another_application(
    found: list[TopicUse],
) -> None:
    one, other = found
    together = not one.hosts or not other.hosts or bool(one.hosts & other.hosts)
    for flow in plan_flows("zurich", found, of="one"):
        ends = other.topics.subscribe if flow.does == "publishes" else other.topics.publish
        reached = any(match_topic(flow.topic, t) and match_topic(end, t) for t in TOPICS for end in ends)
        assert bool(flow.joined) == reached
        assert bool(flow.trouble) == (not flow.joined)
        assert bool(flow.linked) == (reached and not together)


def test_what_joins_applications_is_said_in_sentences() -> None:
    found = [
        TopicUse("line", TopicsSpec(publish=("plant/line1/#", "plant/alarm")), frozenset({"h1"})),
        TopicUse("rules", TopicsSpec(subscribe=("plant/+/count", "plant/orders")), frozenset({"h1", "h2"})),
        TopicUse("far", TopicsSpec(subscribe=("plant/alarm",)), frozenset({"h2"})),
        TopicUse("own", TopicsSpec(publish=("own/a",), subscribe=("own/a",))),
    ]
    topics = SiteTopics(
        site="zurich",
        broker="nats",
        flows=plan_flows("zurich", found),
        hosts={"h1": "", "h2": "it is broken"},
        links={"h1": {"h2": ""}, "h2": {"h1": "it is away"}},
    )
    assert list(topic_sentences(topics)) == [
        "Site zurich has nats on each host whose applications use the bus.",
        "line publishes plant/line1/#: joined with rules.",
        "line publishes plant/alarm: joined with far, over a link between hosts with far.",
        "rules reads plant/+/count: joined with line.",
        "rules reads plant/orders: nobody publishes it.",
        "far reads plant/alarm: joined with line, over a link between hosts with line.",
        "own publishes own/a: nobody reads it.",
        "own reads own/a: nobody publishes it.",
        "On h1 it runs.",
        "From h2 to h1 the link is open.",
        "On h2 its trouble is: it is broken.",
        "From h1 to h2 nothing comes: it is away.",
    ]
    (line,) = topic_sentences(SiteTopics(site="zurich", broker="none"))
    assert line == "No application of site zurich uses the message bus."
