"""From the text an application tells its metrics in to what happened between two looks at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.kit.errors import Rejected
from skerry.spec.application import Collected, MeanMetric, MetricsEndpoint, RateMetric
from skerry.spec.metrics import MEAN_STEPS, Histogram, Mean, Rate, Value
from skerry.spec.series import parse_series
from skerry.telemetry.collecting import Look, measure, merge_values, take_look, wanted_names
from skerry.telemetry.exposition import MAX_BYTES, MAX_SERIES, Exposition, parse_exposition

ERRORS = Collected(
    name="errors", rate=RateMetric(bad='http_requests_total{status=~"5.."}', total="http_requests_total")
)
LATENCY = Collected(name="latency", histogram="http_seconds")
QUEUE = Collected(name="queue", mean=MeanMetric(gauge="queue_length", low=0, high=100))
SIZE = Collected(name="size", mean=MeanMetric(summary="picture_bytes", low=0, high=100))
ENDPOINT = MetricsEndpoint(port="http", collect=(ERRORS, LATENCY, QUEUE, SIZE))

PAGE = b"""\
# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{status="200",path="/a b\\"c}"} 90
http_requests_total{status="503",} 7 1700000000000
http_requests_total{status="500"} 3.0 # {trace="x"} 1 1.0
http_seconds_bucket{le="0.1"} 80
http_seconds_bucket{le="0.5"} 95
http_seconds_bucket{le="+Inf"} 100
http_seconds_sum 12.5
http_seconds_count 100
queue_length 50
picture_bytes_sum 500
picture_bytes_count 10
other_total{this is not metrics
"""


def look(page: bytes) -> Look:
    return take_look(ENDPOINT, parse_exposition(page, wanted_names(ENDPOINT)))


def between(before: bytes | None, after: bytes) -> dict[str, Value]:
    return measure(ENDPOINT, look(before) if before is not None else None, look(after))


def counted(ok: int, bad: int) -> bytes:
    return f'http_requests_total{{status="200"}} {ok}\nhttp_requests_total{{status="500"}} {bad}\n'.encode()


def test_a_first_look_counts_nothing_and_a_second_what_came_in_between() -> None:
    assert between(None, PAGE) == {
        "queue": Mean(count=1, total=MEAN_STEPS // 2, squares=1 << 30, low=0, high=100)
    }
    assert between(counted(100, 2), counted(110, 5))["errors"] == Rate(bad=3, total=13)


def test_labels_are_matched_and_escapes_comments_times_and_exemplars_are_read_as_they_are_meant() -> None:
    assert between(b"", PAGE)["errors"] == Rate(bad=10, total=100)
    labels = next(iter(parse_exposition(PAGE, {"http_requests_total"}).of("http_requests_total")))
    assert dict(labels) == {"status": "200", "path": '/a b"c}'}


def test_an_application_that_began_anew_counts_from_nothing_and_nothing_is_negative() -> None:
    assert between(counted(1000, 10), counted(5, 1))["errors"] == Rate(bad=1, total=6)
    # One counter has overtaken itself since: that the other fell says that all began anew.
    assert between(counted(3, 10), counted(5, 1))["errors"] == Rate(bad=1, total=6)


def test_a_series_that_appears_has_counted_since_the_look_before() -> None:
    assert between(b'http_requests_total{status="200"} 5\n', counted(7, 2))["errors"] == Rate(bad=2, total=4)


def test_more_bad_ones_than_there_were_count_as_all_of_them() -> None:
    page = MetricsEndpoint(
        port="http",
        collect=(Collected(name="errors", rate=RateMetric(bad="failed_total", total="seen_total")),),
    )
    after = take_look(page, parse_exposition(b"failed_total 9\nseen_total 4\n", wanted_names(page)))
    assert measure(page, Look({}), after) == {"errors": Rate(bad=4, total=4)}


def test_a_sample_of_a_classic_histogram_counts_as_the_bound_of_its_bucket_and_one_beyond_as_twice_the_last() -> (
    None
):
    latency = between(b"", PAGE)["latency"]
    assert isinstance(latency, Histogram)
    assert latency.total == 100
    found = {latency.offset + place: count for place, count in enumerate(latency.counts) if count}
    bounds = {2.0 ** ((index + 1) / 2**latency.scale): count for index, count in found.items()}
    assert sorted(bounds.values()) == [5, 15, 80]
    for bound, said in zip(sorted(bounds), (0.1, 0.5, 1.0), strict=True):
        assert said <= bound <= said * 1.011


def test_samples_of_a_summary_count_as_far_apart_as_they_can_be() -> None:
    size = between(b"picture_bytes_sum 0\npicture_bytes_count 0\n", PAGE)["size"]
    assert size == Mean(count=10, total=5 * MEAN_STEPS, squares=5 * MEAN_STEPS**2, low=0, high=100)


@pytest.mark.parametrize(
    "line",
    (
        b"queue_length", b"queue_length x", b"queue_length 1_0", b'queue_length{a="b" 1', b"queue_length{a=b} 1",
        b'queue_length{a="b"}', b'queue_length{a="b" c="d"} 1', b'queue_length{"a"} 1', b"queue_length 0x10",
    ),
)  # fmt: skip
def test_a_malformed_line_of_a_wanted_name_refuses_the_page_and_any_other_is_passed_over(line: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_exposition(b"queue_length 1\n" + line + b"\n", {"queue_length"})
    assert caught.value.code == "metrics.malformed"
    assert parse_exposition(line + b"\nup 1\n", {"up"}) == Exposition({"up": {(): 1.0}})


def test_what_is_too_much_is_refused_and_what_is_no_number_is_nothing() -> None:
    with pytest.raises(Rejected):
        parse_exposition(b"#" * (MAX_BYTES + 1), {"up"})
    many = b"".join(b'up{n="%d"} 1\n' % number for number in range(MAX_SERIES + 1))
    with pytest.raises(Rejected):
        parse_exposition(many, {"up"})
    assert between(b"", b"queue_length NaN\nhttp_requests_total +Inf\n") == {}
    assert parse_exposition(b"up 1\n# EOF\nup 2\n", {"up"}).of("up") == {(): 1.0}


pages = st.lists(
    st.one_of(
        st.builds(
            '{}{{le="{}",status="{}"}} {}'.format,
            st.sampled_from(
                ["http_requests_total", "http_seconds_bucket", "queue_length", "picture_bytes_sum"]
            ),
            st.sampled_from(["0.1", "+Inf", "-1", "nan", "1e999", "-Inf", "0", "1e-320", "1e308", "x"]),
            st.sampled_from(["200", "500", ""]),
            st.one_of(st.floats(), st.integers(-(10**30), 10**30)),
        ),
        st.text(max_size=40),
        st.just("picture_bytes_count 3"),
    ),
    max_size=12,
).map(lambda lines: "\n".join(lines).encode(errors="replace"))


@given(pages, pages)
def test_whatever_an_application_tells_values_are_sound_and_can_be_merged(one: bytes, other: bytes) -> None:
    try:
        before, after = look(one), look(other)
    except Rejected:
        return
    for value in measure(ENDPOINT, before, after).values():
        merged = merge_values(value, value)
        assert type(merged) is type(value)
        if isinstance(value, Mean):
            assert Mean(**{name: getattr(merged, name) for name in Mean.__struct_fields__}) == merged


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    (
        ("5..", ("500", "503"), ("50", "5000", "404")),
        ("2..|404", ("200", "404"), ("405", "")),
        (".*", ("", "anything"), ()),
        ("a.*b.*c", ("abc", "axxbyyc", "abcbc"), ("ab", "abcd")),
        ("GET|POST", ("GET",), ("GETPOST",)),
    ),
)
def test_patterns_match_whole_values(pattern: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    selector, inverse = (parse_series(f'up{{x{op}"{pattern}"}}') for op in ("=~", "!~"))
    assert all(selector.selects({"x": value}) and not inverse.selects({"x": value}) for value in yes)
    assert all(not selector.selects({"x": value}) and inverse.selects({"x": value}) for value in no)


def test_a_pattern_made_to_be_slow_is_not() -> None:
    selector = parse_series('up{x=~"' + ".*a" * 60 + '"}')
    assert not selector.selects({"x": "a" * 20_000 + "b"}), "and with backtracking this would never come back"


@pytest.mark.parametrize(
    "text",
    ("", "5xx", "up{", "up}", 'up{x="1"', "up{x=1}", 'up{x=~"(a+)+"}', 'up{x="1"}y', 'up{x~"1"}', "up x"),
)
def test_what_is_no_selector_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_series(text)
