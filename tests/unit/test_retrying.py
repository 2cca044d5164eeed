"""When those who failed come again: ever later, at random, and not before they were asked to."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest

from skerry.carrier.retrying import LEAST_S, LONGEST_ASKED_S, MOST_S, Retry, asked_wait_s
from skerry.kit.errors import SkerryError, Unavailable
from skerry.spec.problem_details import problem_of
from tests.unit.test_carrier_link import Certificates, body, misbehaving, refusal

AWAY = Unavailable("link.unreachable", "nobody there")
HOSTS = 1000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], datetime.now(UTC))


def arrivals(outage_s: float, error: SkerryError) -> list[float]:
    """Return when each host of a fleet, all of which failed at 0, comes first after an outage."""
    found = list[float]()
    for _ in range(HOSTS):
        retry, now = Retry(), 0.0
        while now < outage_s:
            now += retry.next_wait_s(error)
        found.append(now)
    return found


@pytest.mark.parametrize("outage_s", (30.0, 120.0, 3600.0))
def test_a_thousand_hosts_do_not_come_back_in_one_second_after_an_outage(outage_s: float) -> None:
    random.seed(1)
    found = arrivals(outage_s, AWAY)
    busiest = max(Counter(math.floor(at) for at in found).values())
    assert busiest < HOSTS / 10
    assert max(found) <= outage_s + MOST_S


def test_a_thousand_hosts_that_are_asked_to_wait_do_so_and_do_not_come_back_together() -> None:
    random.seed(2)
    found = arrivals(1.0, Unavailable("rate.limited", "later", retry_after_s=60))
    assert min(found) >= 60
    assert max(Counter(math.floor(at) for at in found).values()) < HOSTS / 10


def test_waits_grow_to_a_minute_and_begin_anew_after_a_success() -> None:
    random.seed(3)
    rows = [[retry.next_wait_s(AWAY) for _ in range(12)] for retry in (Retry() for _ in range(300))]
    longest = [max(row[number] for row in rows) for number in range(12)]
    assert longest[0] <= 2
    assert longest == sorted(longest[:5]) + longest[5:]
    assert 50 < max(longest) <= MOST_S
    assert min(min(row) for row in rows) >= LEAST_S
    retry = Retry()
    for _ in range(9):
        retry.next_wait_s()
    retry.reset()
    assert retry.next_wait_s() <= 2


@pytest.mark.parametrize(
    ("asked", "expected"),
    ((5, 5), (0.5, 0.5), (10**9, LONGEST_ASKED_S), (-5, 0), (True, 0), ("5", 0), (None, 0), (math.nan, 0)),
)
def test_what_is_asked_for_is_bounded(asked: float | str | None, expected: float) -> None:
    assert asked_wait_s(Unavailable("a.b", "later", retry_after_s=asked)) == expected


def dated(seconds: int) -> bytes:
    # By a clock that is years off: the upstream's own counts.
    there = datetime(2040, 1, 1, tzinfo=UTC)
    date, then = (format_datetime(at, usegmt=True) for at in (there, there + timedelta(seconds=seconds)))
    return f"Date: {date}\r\nRetry-After: {then}\r\n".encode()


HEADERS: list[tuple[bytes, object]] = [
    (b"Retry-After: 30\r\n", 30.0),
    (dated(45), 45.0),
    (dated(-45), 0.0),
    (b"", None),
    (b"Retry-After: soon\r\n", None),
    (b"Retry-After: -3\r\n", None),
    (b"Retry-After: 99999999999999999999999\r\n", None),
]


@pytest.mark.parametrize("status", ("503 Service Unavailable", "429 Too Many Requests"))
@pytest.mark.parametrize(("more", "expected"), HEADERS)
def test_an_answer_says_when_to_ask_again(
    certificates: Certificates, status: str, more: bytes, expected: object
) -> None:
    problem = msgspec.json.encode(problem_of(Unavailable("database.locked", "busy")))
    for content in (problem, b"<html>"):
        with misbehaving(certificates, body(content, status=status, more=more)) as url:
            error = refusal(url, certificates.ca_pem)
        assert error.family == "unavailable"
        assert error.facts.get("retry_after_s") == expected


def test_what_the_problem_itself_says_counts_more(certificates: Certificates) -> None:
    problem = msgspec.json.encode(problem_of(Unavailable("rate.limited", "busy", retry_after_s=7)))
    answer = body(problem, status="429 Too Many Requests", more=b"Retry-After: 30\r\n")
    with misbehaving(certificates, answer) as url:
        assert refusal(url, certificates.ca_pem).facts["retry_after_s"] == 7
