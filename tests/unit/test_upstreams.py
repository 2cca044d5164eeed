"""Several upstreams in the place of one: which is used when, and what becomes of calls meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.carrier.link import HttpLink
from skerry.carrier.upstreams import (
    FAILURES,
    MAX_UPSTREAMS,
    MOST_STAY_S,
    PROVEN_S,
    STAY_S,
    Choice,
    Upstream,
    Upstreams,
)
from skerry.kit.errors import Denied, Rejected, SkerryError, Unavailable, Untrusted
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.report import Report
from skerry.testing.clock import SimulatedClock
from skerry.testing.waiting import eventually_sync
from tests.unit.carrier_backend import REQUEST, Backend
from tests.unit.test_carrier_link import Certificates, served
from tests.unit.upstream import ScriptedLink

AWAY = Unavailable("link.unreachable", "nobody there")
WAITING = msgspec.structs.replace(REQUEST, wait_s=240.0)


class Far(ScriptedLink):
    """A link to an upstream that is there or not, as a test says."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.error: SkerryError | None = None
        self.reached = 0
        self.cuts = 0
        self.first: Callable[[], None] = lambda: None
        self.closed = False
        self.on_traffic: Callable[[int], None] = lambda _: None

    def _reply(self, request: SyncRequest, newest: Report) -> SyncAnswer:
        first, self.first = self.first, lambda: None
        first()
        if self.error is not None:
            raise self.error
        return SyncAnswer(acknowledged=newest.sequence)

    def reach(self) -> None:
        self.reached += 1
        if self.error is not None:
            raise self.error

    def cut_waits(self) -> None:
        self.cuts += 1

    def close(self) -> None:
        self.closed = True

    @contextmanager
    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> Generator[Iterator[bytes]]:
        yield iter((b"bytes",))


class World:
    """Upstreams by number, and the time."""

    def __init__(self, count: int) -> None:
        self.clock = SimulatedClock()
        self.links = [Far() for _ in range(count)]
        self.up = Upstreams(
            [Upstream(f"https://{number}", link) for number, link in enumerate(self.links)], self.clock
        )

    @property
    def used(self) -> int:
        return next(number for number, view in enumerate(self.up.view()) if view.in_use)

    def poll(self, seconds: float, every_s: float = 5.0) -> None:
        """Ask and wait for news, again and again, for so long."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            with suppress(Unavailable):
                self.up.sync(WAITING)
            self.clock.advance(every_s)

    def leave_first(self) -> float:
        """Let the first fail until it is left, and return when that was."""
        self.links[0].error = AWAY
        while self.used == 0:
            self.poll(1, every_s=1)
        return self.clock.monotonic()


def test_the_first_is_used_until_it_fails_several_times_in_a_row() -> None:
    world = World(3)
    for _ in range(FAILURES - 1):
        world.links[0].error = AWAY
        with pytest.raises(Unavailable):
            world.up.sync(REQUEST)
        assert world.used == 0
    world.links[0].error = None
    world.up.sync(REQUEST)
    world.links[0].error = AWAY
    for _ in range(FAILURES - 1):
        with pytest.raises(Unavailable):
            world.up.sync(REQUEST)
    world.up.sync(REQUEST)
    assert world.used == 1, "the call that met the last failure went on with the next one"
    assert world.links[0].cuts == 1, "who waits there is called back"
    left, used, other = world.up.view()
    assert (left.trouble, used.trouble, other.trouble) == ("nobody there", "", "")
    assert left.since is not None


@pytest.mark.parametrize(
    "error",
    (Denied("host.unknown", "no"), Unavailable("rate.limited", "later"), Untrusted("report.bad", "no")),
)
def test_what_an_upstream_refuses_is_an_answer_and_no_failure(error: SkerryError) -> None:
    world = World(2)
    world.links[0].error = error
    for _ in range(5 * FAILURES):
        with pytest.raises(type(error)):
            world.up.sync(REQUEST)
    assert world.used == 0


def test_an_upstream_that_is_another_than_it_should_be_is_left() -> None:
    world = World(2)
    world.links[0].error = Untrusted("link.tls", "another")
    for _ in range(FAILURES):
        try:
            world.up.sync(REQUEST)
        except Untrusted:
            continue
    assert world.used == 1


def test_an_earlier_one_is_come_back_to_when_it_is_there_again_and_not_before_a_while() -> None:
    world = World(2)
    began = world.leave_first()
    world.links[0].error = None
    while world.used == 1:
        world.poll(1, every_s=1)
    assert 0.7 * STAY_S <= world.clock.monotonic() - began <= 1.3 * STAY_S + 2
    assert world.links[1].cuts == 1
    assert world.up.view()[0].trouble == ""


def test_a_call_that_was_cut_because_an_earlier_one_is_there_goes_on_there_and_counts_against_nobody() -> (
    None
):
    world = World(2)
    world.leave_first()
    world.links[0].error = None

    def cut() -> None:
        while world.used == 1:
            world.poll(1, every_s=1)
        raise Unavailable("link.cut", "cut")

    world.links[1].first = cut
    world.up.sync(WAITING)
    assert world.used == 0
    assert [view.trouble for view in world.up.view()] == ["", ""]


def test_a_wait_for_news_ends_when_it_is_time_to_ask_an_earlier_one() -> None:
    world = World(2)
    world.up.sync(WAITING)
    assert world.links[0].requests[-1].wait_s == 240
    world.leave_first()
    assert world.links[1].requests[-1].wait_s <= 1.3 * STAY_S


def test_calls_that_do_not_wait_never_ask_an_earlier_one() -> None:
    world = World(2)
    world.leave_first()
    world.clock.advance(10 * STAY_S)
    for _ in range(9):
        world.up.sync(REQUEST)
    assert world.links[0].reached == 0


def test_an_upstream_that_answers_questions_and_nothing_else_is_come_back_to_ever_more_rarely() -> None:
    world = World(2)
    world.links[0].reach = lambda: None  # type: ignore[method-assign]
    world.links[0].error = AWAY
    world.poll(6 * 3600, every_s=10)
    assert world.used == 1
    assert world.links[1].cuts <= 20, "six hours"


@pytest.mark.parametrize("seed", range(20))
def test_when_none_answers_all_are_tried_and_the_first_that_does_is_used(seed: int) -> None:
    random.seed(seed)
    world = World(3)
    for link in world.links:
        link.error = AWAY
    world.poll(3600, every_s=30)
    asked = [len(link.requests) for link in world.links]
    world.poll(600, every_s=30)
    assert all(len(link.requests) > before for link, before in zip(world.links, asked, strict=True))
    world.links[1].error = None
    world.poll(60, every_s=30)
    assert world.used == 1
    world.links[0].error = None
    world.poll(3 * STAY_S, every_s=10)
    assert world.used == 0, "a long time without any makes none of them worse"


def test_blobs_come_from_the_one_in_use() -> None:
    world = World(2)
    world.leave_first()
    with world.up.blob("sha256:0", offset=0, token="") as chunks:
        assert b"".join(chunks) == b"bytes"


def test_others_can_take_their_place_and_those_of_before_are_closed() -> None:
    world = World(2)
    other = Far()
    world.up.replace([Upstream("https://other", other)])
    assert all(link.closed for link in world.links)
    world.up.sync(REQUEST)
    assert (world.up.url, len(other.requests)) == ("https://other", 1)
    world.up.close()
    assert other.closed
    late = Far()
    world.up.replace([Upstream("https://late", late)])
    assert late.closed


@pytest.mark.parametrize("count", (0, MAX_UPSTREAMS + 1))
def test_there_is_at_least_one_and_not_any_number(count: int) -> None:
    with pytest.raises(Rejected):
        World(count)


moments = st.lists(st.tuples(st.sampled_from("sfqQ"), st.integers(0, 3), st.floats(0, 400)), max_size=80)


@given(st.integers(1, 4), moments)
def test_whatever_happens_one_that_was_left_is_stayed_away_from_for_a_while(
    count: int, moments: list[tuple[str, int, float]]
) -> None:
    choice, now, left = Choice(count), 0.0, dict[int, float]()
    for what, which, passed in moments:
        now, used = now + passed, choice.used
        if what == "s":
            choice.note_success(which % count, now)
        elif what == "f":
            choice.note_failure(which % count, now)
        elif (asked := choice.question(now)) is not None:
            assert asked < used
            assert now - left[asked] >= STAY_S
            choice.note_answer(asked, now, there=what == "Q")
        if choice.used != used:
            left[used] = now
        wait_s = choice.wait_s(now)
        assert (wait_s is None) == (choice.used == 0)
        assert wait_s is None or 0 < wait_s <= MOST_STAY_S


def test_calls_that_fail_late_at_one_that_was_left_change_nothing() -> None:
    choice = Choice(3)
    for _ in range(FAILURES):
        choice.note_failure(0, 0.0)
    before = choice.wait_s(50.0)
    for _ in range(3 * FAILURES):
        assert choice.note_failure(0, 50.0), "the call is to go on with the one in use"
    assert (choice.used, choice.wait_s(50.0)) == (1, before)


def test_one_that_has_answered_for_long_is_trusted_as_if_it_had_never_failed() -> None:
    choice, now, waits = Choice(2), 0.0, list[float]()
    for proven in (False, False, True):
        for _ in range(FAILURES):
            choice.note_success(1, now)
            choice.note_failure(0, now)
        waits.append(choice.wait_s(now) or 0)
        now += waits[-1]
        assert choice.note_answer(0, now, there=True)
        choice.note_success(0, now)
        if proven:
            now += PROVEN_S
            choice.note_success(0, now)
    for _ in range(FAILURES):
        choice.note_failure(0, now)
    assert waits == [STAY_S, 2 * STAY_S, 4 * STAY_S]
    assert choice.wait_s(now) == STAY_S


def test_who_waits_at_an_upstream_that_fails_others_follows_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    certificates = Certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], datetime.now(UTC))
    first, second = Backend(), Backend()
    answers = list[SyncAnswer]()
    with served(first, certificates) as one, served(second, certificates) as two:
        ways = [Upstream(url, HttpLink(url, certificates.ca_pem)) for url in (one, two)]
        up = Upstreams(ways, SimulatedClock())

        def wait() -> None:
            with pytest.raises(Unavailable):  # in the end, when all is closed
                answers.append(up.sync(WAITING))

        waiting = threading.Thread(target=wait)
        waiting.start()
        try:
            assert first.waits.wait(20)
            first.error = AWAY
            eventually_sync(lambda: _tried(lambda: up.sync(REQUEST)))
            assert second.waits.wait(20), "the call that waited at the first one waits at the second now"
        finally:
            up.close()
            waiting.join(20)
        assert not waiting.is_alive()


def _tried(call: Callable[[], object]) -> bool:
    try:
        call()
    except Unavailable:
        return False
    return True
