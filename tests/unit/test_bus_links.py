"""What goes between the hosts of a site: exactly what one publishes and another reads, by both ends alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skerry.matching.bus_links import apart, crossing, plan_links
from skerry.matching.topics import match_any_topic, patterns_meet
from skerry.spec.topics import HostTopics
from tests.unit.test_topics import TOPICS, patterns

some = st.lists(patterns(), max_size=4).map(tuple)
buses = st.dictionaries(
    st.sampled_from(("h1", "h2", "h3")), st.builds(HostTopics, publish=some, subscribe=some)
)


@given(some, some)
def test_exactly_what_is_published_and_read_crosses(
    published: tuple[str, ...], read: tuple[str, ...]
) -> None:
    crossed = crossing(published, read)
    for topic in TOPICS:
        both = match_any_topic(published, topic) and match_any_topic(read, topic)
        assert match_any_topic(crossed, topic) == both, topic


@given(buses)
def test_what_one_end_sends_is_what_the_other_takes(found: dict[str, HostTopics]) -> None:
    plans = {host: plan_links(host, found) for host in found}
    for host, plan in plans.items():
        assert host not in plan.sends and host not in plan.takes
        for other, sent in plan.sends.items():
            assert plans[other].takes[host] == sent
        for other in plan.takes:
            assert host in plans[other].sends


@given(some)
def test_patterns_that_are_apart_take_in_all_and_have_nothing_in_common(found: tuple[str, ...]) -> None:
    kept = apart(found)
    assert not [(a, b) for a in kept for b in kept if a != b and patterns_meet(a, b)]
    for topic in TOPICS:
        if match_any_topic(found, topic):
            assert match_any_topic(kept, topic), topic


def test_a_site_without_common_topics_has_no_links() -> None:
    line, other = HostTopics(publish=("plant/a",)), HostTopics(subscribe=("plant/b",))
    for host in ("h1", "h2", "h9"):
        plan = plan_links(host, {"h1": line, "h2": other})
        assert not plan.sends and not plan.takes
    assert plan_links("h1", {"h1": line, "h2": HostTopics(subscribe=("plant/+",))}).sends == {
        "h2": ("plant/a",)
    }
