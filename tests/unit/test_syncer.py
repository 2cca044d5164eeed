"""The sync loop: what a host takes and refuses, when it asks again, and how it learns the time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.agent.loops.sync import Syncer
from skerry.kit.errors import SkerryError, Unavailable, Untrusted
from skerry.ports.agent_store import AgentStore
from skerry.spec.carrier import JsonEnvelope, SyncAnswer, SyncRequest
from skerry.spec.report import ApplicationView, Observed, Phase, Report
from skerry.testing.clock import SimulatedClock
from skerry.testing.faults import FaultPlan, FaultyAgentStore
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.waiting import eventually
from tests.unit.upstream import NOW, STRANGER, ScriptedLink, desired, hub_time, identity

FULL = Unavailable("disk.full", "no room left in this test")


def observed(phase: Phase) -> Observed:
    return Observed(applications={"talker": ApplicationView(phase=phase)})


class Upstream:
    """A hub that says one thing at a time and counts how often it is asked."""

    def __init__(self) -> None:
        self.desired: JsonEnvelope | None = None
        self.error: SkerryError | None = None
        self.now: datetime | None = None
        self.observed: Observed | None = None
        self.sequence = 0
        self.link = ScriptedLink(self._answer)

    @property
    def asked(self) -> int:
        return len(self.link.requests)

    def events(self) -> list[str]:
        """What was told, each report counted once."""
        reports = {report.sequence: report for request in self.link.reports for report in request}
        return [event.message for _, report in sorted(reports.items()) for event in report.events]

    def _answer(self, request: SyncRequest, newest: Report) -> SyncAnswer:
        if self.error is not None:
            raise self.error
        self.sequence = max(self.sequence, newest.sequence)
        self.observed = newest.observed or self.observed
        time = (
            hub_time(newest.sequence, self.now)
            if self.now and abs(newest.sent_at - self.now) > timedelta(30)
            else None
        )
        return SyncAnswer(acknowledged=newest.sequence, desired=self.desired, time=time)


def syncer(
    upstream: Upstream, store: AgentStore | None = None, clock: SimulatedClock | None = None
) -> Syncer:
    return Syncer(identity(), store or MemoryAgentStore(), upstream.link, clock or SimulatedClock(NOW))


@asynccontextmanager
async def polling(made: Syncer) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(made.poll_forever()), asyncio.create_task(made.flush_forever())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def elapse_until(clock: SimulatedClock, condition: Callable[[], object], step_s: float = 0.1) -> float:
    """Let simulated time pass in steps until a condition holds; return how many seconds passed."""
    began = clock.monotonic()

    async def look() -> bool:
        if not condition():
            await clock.elapse(step_s)
        return bool(condition())

    await eventually(look)
    return clock.monotonic() - began


REFUSED: list[tuple[str, JsonEnvelope]] = [
    ("envelope.bad_signature", desired(9, key=STRANGER)),
    ("desired.wrong_site", desired(9, site="airport")),
    ("desired.expired", desired(9, at=NOW - timedelta(days=61))),
    ("desired.from_the_future", desired(9, at=NOW + timedelta(days=1))),
    ("desired.not_newer", desired(4)),
    ("envelope.malformed", {"payload": 1}),
]


@pytest.mark.rule("SYNC-2")
@pytest.mark.parametrize(("code", "envelope"), REFUSED, ids=[code for code, _ in REFUSED])
async def test_a_desired_state_that_is_refused_is_not_stored_and_is_told_once(
    code: str, envelope: JsonEnvelope
) -> None:
    store, upstream, clock = MemoryAgentStore(), Upstream(), SimulatedClock(NOW)
    upstream.desired = desired(5)
    made = syncer(upstream, store, clock)
    await made.exchange(0.0)
    held = store.load("desired")
    upstream.desired = envelope
    async with polling(made):
        for _ in range(6):
            asked = upstream.asked
            await elapse_until(clock, lambda asked=asked: upstream.asked > asked, 1.0)  # type: ignore[misc]
            made.tell(Observed(), {})
        assert made.desired is not None
        assert made.desired.generation == 5
        assert store.load("desired") == held
        upstream.desired = None
        await elapse_until(clock, upstream.events, 1.0)
    assert [message.split(":")[0] for message in upstream.events()] == [code]


@pytest.mark.parametrize("failure", ("refused", "unavailable"))
async def test_failures_are_retried_ever_more_slowly_and_never_in_a_hot_loop(failure: str) -> None:
    random.seed(3)
    upstream, clock = Upstream(), SimulatedClock(NOW)
    if failure == "refused":
        upstream.desired = desired(1, key=STRANGER)
    else:
        upstream.error = Unavailable("link.unreachable", "nobody there")
    made, waits = syncer(upstream, clock=clock), list[float]()
    async with polling(made):
        await elapse_until(clock, lambda: upstream.asked)
        for _ in range(8):
            asked = upstream.asked
            waits.append(await elapse_until(clock, lambda asked=asked: upstream.asked > asked, 2.0))  # type: ignore[misc]
            # A change does not hasten a failing link.
            made.tell(observed("running" if asked % 2 else "soaking"), {})
        assert min(waits) >= 0.2
        assert max(waits[4:]) >= 20
        assert max(waits) <= 66
        upstream.desired, upstream.error = desired(1), None
        assert await elapse_until(clock, lambda: made.desired, 2.0) <= 66


async def test_an_upstream_that_answers_at_once_for_ever_does_not_make_the_host_spin() -> None:
    upstream, clock = Upstream(), SimulatedClock(NOW)
    upstream.desired = desired(5)
    async with polling(syncer(upstream, clock=clock)):
        await elapse_until(clock, lambda: upstream.asked >= 10, 0.05)
        assert clock.monotonic() >= 0.9


@pytest.mark.rule("SYNC-1")
async def test_what_was_taken_is_held_by_the_next_agent_also_when_it_has_expired() -> None:
    store, upstream = MemoryAgentStore(), Upstream()
    upstream.desired = desired(5)
    await syncer(upstream, store).exchange(0.0)
    for later in (NOW, NOW + timedelta(days=400), datetime(1970, 1, 1, tzinfo=UTC)):
        held = syncer(Upstream(), store, SimulatedClock(later)).desired
        assert held is not None
        assert held.generation == 5


async def test_a_stored_desired_state_that_was_damaged_is_not_used_and_fetched_anew() -> None:
    store, upstream = MemoryAgentStore(), Upstream()
    for damage in (b"", b"{", b"{}", msgspec.json.encode(desired(5, key=STRANGER))):
        store.save({"desired": damage})
        made = syncer(upstream, store)
        assert made.desired is None
        upstream.desired = desired(5)
        await made.exchange(0.0)
        assert made.desired is not None


@pytest.mark.rule("SYNC-1")
@settings(max_examples=60)
@given(offers=st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12))
def test_a_lower_generation_never_replaces_a_higher_over_restarts(offers: list[tuple[int, bool]]) -> None:
    async def scenario() -> None:
        store, upstream = MemoryAgentStore(), Upstream()
        made, highest = syncer(upstream, store), 0
        for generation, restart in offers:
            made = syncer(upstream, store) if restart else made
            upstream.desired = desired(generation)
            refused = pytest.raises(Untrusted) if generation < highest else contextlib.nullcontext()
            with refused:
                await made.exchange(0.0)
            highest = max(highest, generation)
            for look in (made, syncer(Upstream(), store)):
                assert look.desired is not None
                assert look.desired.generation == highest

    asyncio.run(scenario())


@pytest.mark.rule("SYNC-1")
async def test_a_desired_state_that_cannot_be_stored_is_not_acted_upon_and_taken_later() -> None:
    plan, upstream, told = FaultPlan(), Upstream(), list[int]()
    made = syncer(upstream, FaultyAgentStore(MemoryAgentStore(), plan))
    await made.exchange(0.0)
    made.on_desired = lambda: told.append(1)
    upstream.desired = desired(5)
    plan.fail("save", FULL)
    with pytest.raises(Unavailable):
        await made.exchange(0.0)
    assert (made.desired, told) == (None, [])
    await made.exchange(0.0)
    assert made.desired is not None
    assert told == [1]


@pytest.mark.parametrize("year", (1970, 2040))
async def test_a_clock_that_is_years_off_is_put_right_by_one_exchange(year: int) -> None:
    store, upstream = MemoryAgentStore(), Upstream()
    upstream.now, upstream.desired = NOW, desired(5, at=NOW - timedelta(hours=1))
    clock = SimulatedClock(datetime(year, 1, 1, tzinfo=UTC))
    made = syncer(upstream, store, clock)
    await made.exchange(0.0)
    assert made.desired is not None
    assert abs(made.now() - NOW) < timedelta(seconds=1)
    clock.advance(60)
    assert abs(made.now() - NOW) < timedelta(seconds=61)
    again = syncer(Upstream(), store, SimulatedClock(datetime(1970, 1, 1, tzinfo=UTC)))
    assert again.now() >= NOW, "the floor is remembered"
    made.note("test.happened")
    made.tell(Observed(), {})
    await made.exchange(0.0)
    newest = upstream.link.reports[-1]
    assert abs(newest[0].events[0].at - NOW) < timedelta(seconds=61)
    assert newest[-1].clock.year == year


@pytest.mark.parametrize("year", (1970, 2040))
async def test_before_it_knows_the_time_a_host_takes_nothing_on_its_wrong_clock(year: int) -> None:
    upstream = Upstream()
    upstream.desired = desired(5)
    made = syncer(upstream, clock=SimulatedClock(datetime(year, 1, 1, tzinfo=UTC)))
    with pytest.raises(Untrusted):
        await made.exchange(0.0)
    assert made.desired is None


async def test_time_that_answers_another_report_is_refused() -> None:
    upstream = Upstream()
    made = syncer(upstream, clock=SimulatedClock(datetime(1970, 1, 1, tzinfo=UTC)))
    for envelope in (hub_time(1, NOW), hub_time(1, NOW, host="other"), desired(1)):

        def answer(_: SyncRequest, newest: Report, time: JsonEnvelope = envelope) -> SyncAnswer:
            return SyncAnswer(acknowledged=newest.sequence, time=time)

        upstream.link.answer = answer
        with pytest.raises(Untrusted):
            await made.exchange(0.0)
    assert made.now().year == 1970


async def test_with_a_full_disk_the_time_is_believed_and_a_change_goes_up_at_once() -> None:
    plan, upstream, clock = FaultPlan(), Upstream(), SimulatedClock(datetime(1970, 1, 1, tzinfo=UTC))
    made = syncer(upstream, FaultyAgentStore(MemoryAgentStore(), plan), clock)
    await made.exchange(0.0)
    for method in ("save", "put_report", "mark_sent", "acknowledge"):
        for nth in range(1, 200):
            plan.fail(method, FULL, nth=nth)
    upstream.now = NOW
    async with polling(made):
        await elapse_until(clock, lambda: abs(made.now() - NOW) < timedelta(minutes=1))
        made.note("test.happened")
        with pytest.raises(Unavailable):
            made.tell(observed("fetching"), {})
        passed = await elapse_until(clock, lambda: upstream.observed == observed("fetching"))
    assert passed < 5


async def test_the_hub_is_told_how_things_stand_again_when_two_exchanges_overtook_each_other() -> None:
    upstream = Upstream()
    made = syncer(upstream)
    made.tell(observed("running"), {})
    real = upstream.link.answer
    held = asyncio.Event()
    loop = asyncio.get_running_loop()
    release: asyncio.Future[None] = loop.create_future()

    def slow(request: SyncRequest, newest: Report) -> SyncAnswer:
        answer = real(request, newest)
        upstream.link.answer = real
        loop.call_soon_threadsafe(held.set)
        asyncio.run_coroutine_threadsafe(_wait(release), loop).result()
        return answer

    upstream.link.answer = slow
    first = asyncio.create_task(made.exchange(0.0))  # says "running", and its answer is late
    await held.wait()
    made.tell(observed("soaking"), {})
    await made.exchange(0.0)
    assert upstream.observed == observed("soaking")
    release.set_result(None)
    await first
    made.tell(observed("running"), {})
    await made.exchange(0.0)
    assert upstream.observed == observed("running")


async def _wait(release: asyncio.Future[None]) -> None:
    await release


async def test_a_host_says_how_things_stand_only_when_that_changed() -> None:
    upstream = Upstream()
    made = syncer(upstream)
    made.tell(observed("running"), {})
    for _ in range(3):
        await made.exchange(0.0)
    assert [newest.observed is not None for *_, newest in upstream.link.reports] == [True, False, False]
    upstream.error = Unavailable("link.cut", "no answer")
    made.tell(observed("soaking"), {})
    with pytest.raises(Unavailable):
        await made.exchange(0.0)
    upstream.error = None
    await made.exchange(0.0)
    await made.exchange(0.0)
    assert [newest.observed is not None for *_, newest in upstream.link.reports[3:]] == [True, True, False]


async def test_what_was_noted_last_is_kept_when_an_agent_ends() -> None:
    upstream, store = Upstream(), MemoryAgentStore()
    made = syncer(upstream, store)
    for number in range(450):
        made.note("component.ended", f"number {number}")
    made.settle()
    again = syncer(upstream, store)
    await again.exchange(0.0)
    assert upstream.events() == [f"number {number}" for number in range(450)]


async def test_the_one_who_wants_a_blob_token_gets_one_soon_and_another_when_it_is_refused() -> None:
    upstream, clock, tokens = Upstream(), SimulatedClock(NOW), iter(["first", "second"])
    waiting = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(request: SyncRequest, newest: Report) -> SyncAnswer:
        if request.wait_s:
            asyncio.run_coroutine_threadsafe(_until(waiting), loop).result()
        return SyncAnswer(acknowledged=newest.sequence, blob_token=next(tokens) if request.want_token else "")

    upstream.link.answer = answer
    made = syncer(upstream, clock=clock)
    async with polling(made):
        assert await asyncio.to_thread(made.token) == ""
        assert await elapse_until(clock, lambda: made.token() == "first") < 2
        made.token(renew=True)
        assert await elapse_until(clock, lambda: made.token() == "second") < 2
        waiting.set()


async def _until(event: asyncio.Event) -> None:
    await event.wait()
