"""Topic patterns: what they match, have in common and cover, beside a plain search; and as subjects of NATS."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.adapters.nats_broker import subjects_of
from skerry.matching.topics import common_pattern, covers, joined_pattern, match_topic, patterns_meet
from skerry.spec.topics import TOPIC_FILTER_PATTERN, TOPIC_PATTERN

ALPHABET = ("a", "b")
# Every topic of up to five levels: one more than patterns here have, so that all ways to differ are among them.
TOPICS = tuple("/".join(levels) for n in range(1, 6) for levels in itertools.product(ALPHABET, repeat=n))


@st.composite
def patterns(draw: st.DrawFn) -> str:
    first = draw(st.sampled_from(ALPHABET))
    rest = draw(st.lists(st.sampled_from((*ALPHABET, "+")), max_size=3))
    return "/".join([first, *rest, *(["#"] if draw(st.booleans()) else [])])


def as_expression(pattern: str) -> re.Pattern[str]:
    """Return what MQTT says of a pattern, as a regular expression."""
    text = re.escape(pattern).replace(r"\+", "[^/]+")
    return re.compile(re.sub(r"/\\?#$", "(/.*)?", text) + r"\Z")


def as_subject_expression(subject: str) -> re.Pattern[str]:
    """Return what NATS says of a subject: `*` is one token, `>` is one or more."""
    words = {"*": "[^.]+", ">": ".+"}
    return re.compile(r"\.".join(words.get(token, re.escape(token)) for token in subject.split(".")) + r"\Z")


@given(patterns())
def test_a_pattern_matches_what_mqtt_says(pattern: str) -> None:
    expression = as_expression(pattern)
    for topic in TOPICS:
        assert match_topic(pattern, topic) == bool(expression.match(topic)), topic


@given(patterns(), patterns())
def test_patterns_meet_where_a_topic_is_in_both(one: str, other: str) -> None:
    together = any(as_expression(one).match(topic) and as_expression(other).match(topic) for topic in TOPICS)
    assert patterns_meet(one, other) == patterns_meet(other, one) == together


@given(patterns(), patterns())
def test_what_two_patterns_have_in_common_is_one_pattern(one: str, other: str) -> None:
    common = common_pattern(one, other)
    for topic in TOPICS:
        together = match_topic(one, topic) and match_topic(other, topic)
        assert together == (common is not None and match_topic(common, topic)), topic


@given(patterns(), patterns())
def test_a_joined_pattern_takes_in_all_that_either_does(one: str, other: str) -> None:
    if one[0] == other[0]:
        joined = joined_pattern(one, other)
        assert re.match(TOPIC_FILTER_PATTERN, joined)
        assert covers(joined, one) and covers(joined, other)


@given(patterns(), patterns())
def test_a_pattern_covers_another_whose_topics_are_all_its_own(wide: str, narrow: str) -> None:
    inside = all(as_expression(wide).match(t) for t in TOPICS if as_expression(narrow).match(t))
    # `+` may be a level that no pattern spells out, which these topics do not have.
    if covers(wide, narrow):
        assert inside
    elif "+" not in narrow:
        assert not inside


@given(patterns())
@pytest.mark.rule("BUS-1")
def test_subjects_of_nats_mean_the_same(pattern: str) -> None:
    expressions = [as_subject_expression(subject) for subject in subjects_of(pattern)]
    for topic in TOPICS:
        subject = topic.replace("/", ".")
        assert any(e.match(subject) for e in expressions) == match_topic(pattern, topic), topic


@pytest.mark.parametrize("text", ("plant", "plant/line1/#", "plant/+/count", "P-1/a_b/+", "0/1"))
def test_what_is_a_pattern(text: str) -> None:
    assert re.search(TOPIC_FILTER_PATTERN, text)
    assert bool(re.search(TOPIC_PATTERN, text)) == (not {"+", "#"} & set(text))


@pytest.mark.rule("BUS-1")
@pytest.mark.parametrize(
    "text",
    (
        *(
            "",
            "#",
            "+",
            "+/a",
            "/a",
            "a/",
            "a//b",
            "a/#/b",
            "a/b#",
            "a/b+",
            "a.b",
            "a/b.c",
            "a b",
            "a/>",
            "a/*",
        ),
        *("$SYS/a", "$JS/API", "a/$x", "_INBOX/a", "-a", "a\n", "ä"),
    ),
)
def test_what_is_none(text: str) -> None:
    assert not re.search(TOPIC_FILTER_PATTERN, text.replace("\n", "/"))
