"""What every HubStore keeps of metrics: a window once, the newest telling of it, and no more than it has room for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from skerry.adapters.sql.store import SqlHubStore
from skerry.ports.hub_store import HubStore
from skerry.spec.metrics import Mean, MetricWindow, Rate, Value, histogram_of
from tests.contract.hub_records import HOUR, NOW, populate

MINUTE = timedelta(minutes=1)
BEGIN = NOW.replace(microsecond=0)


@pytest.fixture(params=("memory", "file"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HubStore]:
    opened = SqlHubStore.open(None if request.param == "memory" else tmp_path / "hub.db")
    populate(opened, sites=("berlin", "paris"), hosts=("cam-1", "cam-2"))
    yield opened
    opened.close()


def window(
    value: Value, *, release: str = "meter@1", minute: int = 0, metric: str = "errors"
) -> MetricWindow:
    return MetricWindow(
        application="meter",
        release=release,
        component="main",
        metric=metric,
        begin=BEGIN + minute * MINUTE,
        end=BEGIN + (minute + 1) * MINUTE,
        value=value,
    )


def put(
    store: HubStore, *windows: MetricWindow, sequence: int = 1, host: str = "cam-1", **how: timedelta
) -> None:
    at = NOW + how.get("after", timedelta())
    site = "berlin" if host == "cam-1" else "paris"
    store.put_metric_windows(host, site, windows, sequence=sequence, at=at)


def found(store: HubStore, *releases: str) -> list[Value]:
    return [one.window.value for one in store.metric_windows("meter", releases or ("meter@1",))]


ONE, TWO = Rate(bad=1, total=10), Rate(bad=2, total=20)


def test_values_of_every_kind_come_back_as_they_were_with_their_host_and_site(store: HubStore) -> None:
    values: tuple[Value, ...] = (
        ONE,
        Mean(count=1, total=5, squares=25, low=-1.5, high=2.0),
        histogram_of([0.1, 3.0, 0.0]),
    )
    windows = [window(value, metric=f"m{place}") for place, value in enumerate(values)]
    put(store, *windows)
    there = store.metric_windows("meter", ("meter@1",))
    assert sorted((one.window for one in there), key=lambda one: one.metric) == windows
    assert {(one.host, one.site) for one in there} == {("cam-1", "berlin")}
    assert store.metric_windows("other", ("meter@1",)) == []


@pytest.mark.rule("SYNC-5")
def test_a_window_told_twice_counts_once_and_an_older_telling_never_replaces_a_newer(store: HubStore) -> None:
    put(store, window(ONE), sequence=5)
    put(store, window(ONE), sequence=5)
    put(store, window(TWO), sequence=6)
    put(store, window(ONE), sequence=5)
    assert found(store) == [TWO]
    put(store, window(ONE), sequence=1, host="cam-2")
    assert found(store) == [TWO, ONE]


def test_windows_are_asked_for_by_release_site_and_time(store: HubStore) -> None:
    put(store, *(window(Rate(bad=0, total=minute), minute=minute) for minute in range(1, 6)))
    put(store, window(TWO, release="meter@2"), host="cam-2")
    late = store.metric_windows("meter", ("meter@1", "meter@2"), since=BEGIN + 4 * MINUTE)
    assert [one.window.value for one in late] == [Rate(bad=0, total=4), Rate(bad=0, total=5)]
    assert [one.host for one in store.metric_windows("meter", ("meter@1", "meter@2"), sites=("paris",))] == [
        "cam-2"
    ]
    assert store.metric_windows("meter", ("meter@1",), sites=()) == []
    assert (
        len(store.metric_windows("meter", ("meter@1",), sites=[f"s{n}" for n in range(1200)] + ["berlin"]))
        == 5
    )


def test_what_is_old_and_what_is_too_much_goes(store: HubStore) -> None:
    for minute in range(6):
        put(store, window(Rate(bad=0, total=minute), minute=minute), after=minute * HOUR)
    assert store.trim_metric_windows(NOW + 2 * HOUR, keep=100) == 2
    assert store.trim_metric_windows(NOW, keep=3) == 1
    assert found(store) == [Rate(bad=0, total=minute) for minute in (3, 4, 5)]
    assert store.trim_metric_windows(NOW, keep=3) == 0


def test_of_what_is_too_much_goes_first_what_nobody_judges_by_a_little_at_a_time(store: HubStore) -> None:
    for minute in range(6):
        put(store, window(Rate(bad=0, total=minute), minute=minute), after=minute * HOUR)
        unneeded = window(Rate(bad=0, total=minute), release="meter@0", minute=minute)
        put(store, unneeded, after=(minute + 3) * HOUR)

    def trim(keep: int, most: int = 100) -> tuple[int, int, int]:
        gone = store.trim_metric_windows(NOW, keep=keep, needed=("meter@1", "meter@2"), most=most)
        return gone, len(found(store, "meter@0")), len(found(store, "meter@1"))

    assert trim(12) == (0, 6, 6)
    assert trim(10) == (2, 4, 6)
    assert trim(7, most=1) == (1, 3, 6)
    assert trim(3) == (3, 0, 6), "all that nobody needs"
    assert trim(3) == (3, 0, 3), "and then the oldest of the rest"
    assert found(store) == [Rate(bad=0, total=minute) for minute in (3, 4, 5)]
    assert trim(3) == (0, 0, 3)
    assert store.trim_metric_windows(NOW + 9 * HOUR, keep=3, most=2) == 2
    assert store.trim_metric_windows(NOW + 9 * HOUR, keep=3, most=2) == 1
    assert trim(0) == (0, 0, 0)
