"""What an application's pages say is counted, whatever its client library calls it."""

from __future__ import annotations

import pytest

from skerry.kit.errors import Rejected
from skerry.telemetry.scraping import Scraper
from skerry.telemetry.sketch import quantile
from skerry.telemetry.windows import Counter, Distribution, Gauge, SeriesKey, WindowValue

WHERE = {"app": "reader", "component": "main", "release": "reader@1.0.0"}

PAGE = b"""\
# HELP requests_total All requests.
# TYPE requests_total counter
requests_total{status="200"} %d
requests_total{status="500"} 2
# TYPE queue gauge
queue 7.5
# TYPE seconds histogram
seconds_bucket{le="0.1"} %d
seconds_bucket{le="0.5"} %d
seconds_bucket{le="+Inf"} %d
seconds_sum %d.5
seconds_count %d
# TYPE size summary
size{quantile="0.5"} 3
size_sum 10
size_count %d
up 1
"""


def page(count: int) -> bytes:
    return PAGE % (count, count, 2 * count, 2 * count, count, 2 * count, count)


def scraper(*keep: str, most: int = 100) -> Scraper:
    return Scraper(keep, WHERE, most=most)


def named(found: dict[SeriesKey, WindowValue], name: str, **labels: str) -> WindowValue:
    wanted = {**WHERE, **labels}
    (value,) = [value for key, value in found.items() if key.name == name and dict(key.labels) == wanted]
    return value


def test_all_series_of_a_page_are_counted_from_one_look_to_the_next() -> None:
    reader = scraper("*")
    reader.read(page(10))
    found = reader.read(page(15))
    assert named(found, "requests_total", status="200") == Counter(1, 5.0)
    assert named(found, "requests_total", status="500") == Counter(1, 0.0)
    assert named(found, "queue") == Gauge(1, 7.5, 7.5, 7.5, 7.5)
    assert named(found, "seconds_sum") == Counter(1, 5.0)
    assert named(found, "size_count") == Counter(1, 5.0)
    assert named(found, "up") == Gauge(1, 1.0, 1.0, 1.0, 1.0)
    seconds = named(found, "seconds")
    assert isinstance(seconds, Distribution)
    assert seconds.count == 10
    assert quantile(seconds.sketch, 0.5) == pytest.approx(0.1, rel=0.011)
    assert not any(key.name in ("seconds_count", "size") for key in found)


def test_only_what_is_named_is_kept_by_name_and_labels() -> None:
    reader = scraper('requests{status="500"}', "seconds")
    reader.read(page(10))
    found = reader.read(page(15))
    assert {key.name for key in found} == {"requests_total", "seconds", "seconds_sum"}
    assert named(found, "requests_total", status="500") == Counter(1, 0.0)


def test_the_first_page_sets_the_beginning_and_a_counter_that_fell_began_anew() -> None:
    reader = scraper("requests_total")
    first = reader.read(page(10))
    assert named(first, "requests_total", status="200") == Counter(1, 0.0)
    assert named(reader.read(page(3)), "requests_total", status="200") == Counter(1, 3.0)


def test_where_an_application_runs_is_not_its_own_to_say() -> None:
    reader = scraper("*")
    found = reader.read(b'queue{app="another",release="9"} 1\n')
    assert named(found, "queue", exported_app="another", exported_release="9").count == 1


@pytest.mark.rule("TELEMETRY-6")
def test_series_beyond_the_bound_are_refused_and_a_histogram_is_one() -> None:
    reader = scraper("*", most=3)
    bomb = b"".join(b'bomb{user="%d"} 1\n' % number for number in range(1000))
    found = reader.read(bomb)
    assert (len(found), reader.refused, reader.worst) == (3, 997, "bomb")
    histogram = scraper("seconds", most=2)
    histogram.read(page(10))
    assert {key.name for key in histogram.read(page(15))} == {"seconds", "seconds_sum"}


def test_a_page_that_is_no_page_is_refused_and_numbers_that_are_none_are_left_out() -> None:
    with pytest.raises(Rejected):
        scraper("*").read(b"queue seven\n")
    assert scraper("*").read(b"queue NaN\nlevel +Inf\n") == {}
    assert scraper("*").read(b"") == {}
