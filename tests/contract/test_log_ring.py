"""The ring of logs keeps the newest lines within its size and age, and how far it was read with them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from skerry.adapters.sqlite_log_ring import KEEP, SqliteLogRing
from skerry.spec.logs import LogRecord
from skerry.testing.clock import SimulatedClock


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def ring(tmp_path: Path, clock: SimulatedClock) -> Iterator[SqliteLogRing]:
    made = SqliteLogRing.open(tmp_path / "deep" / "logs.db", clock.now)
    yield made
    made.close()


def line(at: datetime, message: str = "x", application: str = "reader") -> LogRecord:
    return LogRecord(at=at, application=application, component="main", message=message)


def kept(ring: SqliteLogRing, application: str = "reader") -> list[LogRecord]:
    """Return all lines of an application, oldest first."""
    return [one for chunk in reversed(list(ring.newest_first(application))) for one in chunk]


def test_lines_come_back_the_newest_first_with_how_far_was_read(
    ring: SqliteLogRing, clock: SimulatedClock
) -> None:
    lines = [line(clock.now() + timedelta(minutes=number), str(number)) for number in range(6)]
    ring.add("one", lines[:2], mark="1:10")
    ring.add("two", [line(clock.now(), application="other")], mark="7")
    ring.add("one", lines[2:4], mark="1:20")
    ring.add("one", lines[4:], mark="1:30")
    assert kept(ring) == lines
    assert [chunk[0].message for chunk in ring.newest_first("reader")] == ["4", "2", "0"]
    assert ring.marks() == {"one": "1:30", "two": "7"}
    ring.forget_marks(["one"])
    assert (ring.marks(), len(kept(ring))) == ({"two": "7"}, 6)
    assert ring.oldest("reader") == lines[0].at
    assert ring.oldest("nobody") is None
    since = [chunk[0].message for chunk in ring.newest_first("reader", since=lines[4].at)]
    until = [chunk[0].message for chunk in ring.newest_first("reader", until=lines[2].at)]
    assert (since, until) == (["4"], ["0"])


@pytest.mark.rule("LOG-3")
def test_a_source_that_writes_without_end_takes_its_share_and_no_more(
    ring: SqliteLogRing, clock: SimulatedClock
) -> None:
    ring.most_source_bytes, ring.most_bytes = 20_000, 30_000
    dice = random.Random(1)
    ring.add("quiet", [line(clock.now(), "once", "other")], mark="1")
    for number in range(100):
        clock.advance(1.0)
        ring.add("loud", [line(clock.now(), dice.randbytes(1000).hex())], mark=str(number))
    assert kept(ring, "other")[0].message == "once"
    assert 5 < len(kept(ring)) < 20
    assert kept(ring)[-1].at == clock.now()
    for number in range(20):
        ring.add(f"source-{number}", [line(clock.now(), dice.randbytes(1000).hex(), "many")], mark="1")
    assert kept(ring, "other") == []
    assert sum(len(kept(ring, name)) for name in ("reader", "many")) < 30


@pytest.mark.rule("LOG-3")
def test_lines_that_are_too_old_go(ring: SqliteLogRing, clock: SimulatedClock) -> None:
    ring.add("one", [line(clock.now(), "old")], mark="1")
    clock.advance(KEEP.total_seconds() + 1)
    ring.add("two", [line(clock.now(), "new")], mark="1")
    assert [one.message for one in kept(ring)] == ["new"]


def test_what_was_kept_is_there_after_a_restart_and_a_damaged_ring_begins_anew(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    first = SqliteLogRing.open(tmp_path / "logs.db", clock.now)
    first.add("one", [line(clock.now())], mark="5")
    first.close()
    again = SqliteLogRing.open(tmp_path / "logs.db", clock.now)
    assert (len(kept(again)), again.marks()) == (1, {"one": "5"})
    again.close()
    (tmp_path / "logs.db").write_bytes(b"nothing that SQLite ever wrote" * 1000)
    third = SqliteLogRing.open(tmp_path / "logs.db", clock.now)
    assert (kept(third), third.marks()) == ([], {})
    third.close()
