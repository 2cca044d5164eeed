"""Downloads under a link budget: paced, held back with a reason and no connection, by priority, and told in steps."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from skerry.agent.fetcher import Fetcher, FetchParts, Priority
from skerry.agent.fetching_progress import ProgressMeter
from skerry.carrier.limiting import Grant, Held, Limiter
from skerry.carrier.link import HttpLink
from skerry.kit.digests import digest_of
from skerry.ports.agent_store import AgentStore
from skerry.ports.link import Link
from skerry.spec.desired import LinkPolicy, OpenWindow, SitePolicy
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.report import FetchProgress
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore, MemoryBlobs, MemoryLocalBlobs
from skerry.testing.waiting import eventually, eventually_sync
from tests.unit.carrier_backend import GOOD, Backend
from tests.unit.test_carrier_link import Certificates, served
from tests.unit.upstream import NOW, BlobLink

pytestmark = pytest.mark.delivery

CONTENT = random.Random(3).randbytes(100_000)
DIGEST = digest_of(CONTENT)
METERED: HostFacts = {"link.metered": Fact(value=True, source="override")}


def policy(**link: object) -> SitePolicy:
    return SitePolicy(link=LinkPolicy(**link))  # type: ignore[arg-type]


class World:
    """A fetcher under a budget, on a clock that moves only while a download pauses, or by the test."""

    def __init__(self, root: Path, link: Link, store: AgentStore | None = None, token: str = "good") -> None:
        self.link = link
        self.blobs = MemoryLocalBlobs(root / "blobs")
        self.clock = SimulatedClock(NOW)
        self.store = store or MemoryAgentStore()
        self.limiter = Limiter(self.store, self.clock, self.clock.now)
        self.pauses: list[float] = []
        self.on_pause: Callable[[], None] = lambda: None
        self.fetcher = Fetcher(
            FetchParts(
                self.blobs,
                link,
                self.clock,
                token=lambda *, renew=False: token,
                root=root,
                limiter=self.limiter,
                pause=self.pause,
            )
        )
        self.changes = 0
        self.fetcher.on_change = self.note_change

    def pause(self, stop: threading.Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        self.on_pause()
        return stop.is_set()

    def note_change(self) -> None:
        self.changes += 1

    async def attempt(self, name: str = "release", digest: str = DIGEST, size: int = len(CONTENT)) -> str:
        """Ask for a blob as the reconcile loop does, and return what holds it back when the attempt has ended."""
        before = self.changes
        self.fetcher.want(name, [(digest, size)])

        async def ended() -> bool:
            return self.changes > before

        await eventually(ended)
        return self.fetcher.troubles.get(name, "")


@asynccontextmanager
async def world(root: Path, link: Link, **how: object) -> AsyncGenerator[World]:
    made = World(root, link, **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.fetcher.close()


@pytest.mark.rule("LINK-2")
async def test_a_download_keeps_to_the_rate(tmp_path: Path) -> None:
    async with world(tmp_path, BlobLink({DIGEST: CONTENT})) as made:
        made.limiter.follow(policy(rate=1000), {})
        assert await made.attempt() == ""
        assert made.blobs.has(DIGEST)
        assert made.clock.monotonic() == pytest.approx(100, rel=0.05)
        assert max(made.pauses) <= 5


async def test_each_of_several_hosts_takes_its_share_only(tmp_path: Path) -> None:
    async with world(tmp_path, BlobLink({DIGEST: CONTENT})) as made:
        made.limiter.follow(policy(rate=4000, hosts=4), {})
        await made.attempt()
        assert made.clock.monotonic() == pytest.approx(100, rel=0.05)


@pytest.mark.rule("LINK-1")
async def test_a_used_up_day_holds_a_download_back_until_midnight_and_no_byte_comes_twice(
    tmp_path: Path,
) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with world(tmp_path, link) as made:
        made.limiter.follow(policy(per_day=40_000), {})
        why = await made.attempt()
        assert why == "used 39.1 KiB of 39.1 KiB today, goes on at Tue 2026-05-05 00:00 (UTC)"
        assert link.sent_bytes == 40_000, "not a byte more"
        for _ in range(11):
            made.clock.advance(3600)
            await made.attempt()
        assert link.sent_bytes == 40_000
        made.clock.advance(3600)
        await made.attempt()
        assert link.sent_bytes == 80_000
        made.clock.advance(24 * 3600)
        assert await made.attempt() == ""
    assert link.sent_bytes == len(CONTENT)
    assert [offset for offset, _ in link.asked] == [0, 40_000, 80_000]


async def test_who_is_held_back_asks_for_nothing_until_the_window_opens(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with world(tmp_path, link) as made:
        made.limiter.follow(policy(rate=0, windows=(OpenWindow(cron="0 22 * * *", duration_s=3600.0),)), {})
        assert await made.attempt() == "waiting for the link's window at 22:00 (UTC)"
        assert link.asked == []
        made.clock.advance(10 * 3600)
        assert await made.attempt() == ""
    assert link.sent_bytes == len(CONTENT)


async def test_a_window_that_closes_ends_the_download_and_the_next_one_resumes_it(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with world(tmp_path, link) as made:
        window = OpenWindow(cron="0 12 * * *", duration_s=60.0, rate=1000)
        made.limiter.follow(policy(rate=0, windows=(window,)), {})
        assert "waiting for the link's window at Tue 2026-05-05 12:00" in await made.attempt()
        assert link.sent_bytes == pytest.approx(60_000, rel=0.05)
        made.clock.advance((NOW + timedelta(days=1) - made.clock.now()).total_seconds())
        assert await made.attempt() == ""
    assert link.sent_bytes == len(CONTENT)


async def test_a_link_that_becomes_metered_stops_what_it_may_not_carry(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with world(tmp_path, link) as made:
        limits = policy(rate=1000, metered_rate=0)
        made.limiter.follow(limits, {})
        made.on_pause = lambda: made.limiter.follow(limits, METERED) if len(made.pauses) == 20 else None
        assert await made.attempt() == "waiting for a link that is not metered"
        assert 15_000 < link.sent_bytes < 25_000
        made.limiter.follow(limits, {})
        assert await made.attempt() == "", "and goes on at once when it no longer is"
    assert link.sent_bytes == len(CONTENT)


async def test_another_budget_frees_at_once_what_the_old_one_held(tmp_path: Path) -> None:
    async with world(tmp_path, BlobLink({DIGEST: CONTENT})) as made:
        made.limiter.follow(policy(rate=0), {})
        assert "closed to downloads" in await made.attempt()
        made.limiter.follow(SitePolicy(), {})
        assert await made.attempt() == ""


async def test_a_prefetch_gives_way_to_a_release_and_goes_on_after_it(tmp_path: Path) -> None:
    urgent = random.Random(4).randbytes(5000)
    link = BlobLink({DIGEST: CONTENT, digest_of(urgent): urgent})
    loop = asyncio.get_running_loop()
    async with world(tmp_path, link) as made:
        made.limiter.follow(policy(rate=1000), {})

        threads: list[int] = []

        def interrupt() -> None:
            threads.append(threading.get_ident())
            if threads[-1] != threads[0]:
                # The release goes on when the prefetch has seen it.
                eventually_sync(lambda: "ahead" in made.fetcher.troubles)
            elif len(threads) == 10:

                async def want() -> None:
                    made.fetcher.want("release", [(digest_of(urgent), len(urgent))])

                asyncio.run_coroutine_threadsafe(want(), loop).result(10)

        made.on_pause = interrupt
        made.fetcher.want("ahead", [(DIGEST, len(CONTENT))], priority=Priority.PREFETCH)

        async def gave_way() -> bool:
            return "ahead" in made.fetcher.troubles and made.blobs.has(digest_of(urgent))

        await eventually(gave_way)
        assert made.fetcher.troubles["ahead"] == "waiting for a more urgent download"
        assert not made.blobs.has(DIGEST)
        made.clock.advance(2)
        made.fetcher.want("ahead", [(DIGEST, len(CONTENT))], priority=Priority.PREFETCH)

        async def came() -> bool:
            return made.blobs.has(DIGEST)

        await eventually(came)
    assert link.sent_bytes == len(CONTENT) + len(urgent)


async def test_a_release_that_is_wanted_no_more_stops_while_it_pauses(tmp_path: Path) -> None:
    link, pausing = BlobLink({DIGEST: CONTENT}), threading.Event()
    clock = SimulatedClock(NOW)
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)
    limiter.follow(policy(rate=1000), {})
    ended = threading.Event()

    def pause(stop: threading.Event, _: float) -> bool:
        pausing.set()
        stopped = stop.wait(60)
        ended.set()
        return stopped

    blobs = MemoryLocalBlobs(tmp_path / "blobs")
    parts = FetchParts(
        blobs, link, clock, token=lambda *, renew=False: "good", root=tmp_path, limiter=limiter, pause=pause
    )
    fetcher = Fetcher(parts)
    fetcher.want("release", [(DIGEST, len(CONTENT))])
    assert await asyncio.to_thread(pausing.wait, 10)
    await fetcher.close()
    assert await asyncio.to_thread(ended.wait, 10)
    assert link.sent_bytes < 3000


# ── what is remembered ───────────────────────────────────────────────────────────────────────────────


def test_reports_are_never_held_back_and_count() -> None:
    clock, store = SimulatedClock(NOW), MemoryAgentStore()
    limiter = Limiter(store, clock, clock.now)
    limiter.follow(policy(per_day=1000), {})
    limiter.count(900)
    assert limiter.ask(500) == Grant(100)
    limiter.give_back(100)
    limiter.count(900)
    held = limiter.ask(500)
    assert isinstance(held, Held) and held.wait_s == 12 * 3600


def test_what_was_used_is_remembered_over_a_restart() -> None:
    clock, store = SimulatedClock(NOW), MemoryAgentStore()
    for expected in (Grant(1000), Grant(600), Grant(200)):
        limiter = Limiter(store, clock, clock.now)
        limiter.follow(policy(per_day=1000), {})
        assert limiter.ask(1000) == expected
        limiter.take(400) if expected.size > 400 else limiter.take(200)
        limiter.give_back(expected.size - 400)
    limiter = Limiter(store, clock, clock.now)
    limiter.follow(policy(per_day=1000), {})
    assert isinstance(limiter.ask(1), Held)


@pytest.mark.rule("LINK-3")
def test_while_bytes_flow_the_count_is_stored_every_few_seconds_and_not_more_often() -> None:
    clock, store = SimulatedClock(NOW), MemoryAgentStore()
    limiter = Limiter(store, clock, clock.now)
    limiter.follow(policy(per_day=1 << 30, rate=10_000), {})
    assert isinstance(limiter.ask(1 << 20), Grant)
    stored: list[bytes | None] = []
    for _ in range(600):
        clock.advance(0.1)
        limiter.take(1000)
        stored.append(store.load("link_usage"))
        other = Limiter(store, clock, clock.now)  # as after a kill
        other.follow(policy(per_day=1 << 30), {})
        grant = other.ask(1 << 30)
        assert isinstance(grant, Grant)
        assert len(stored) * 1000 - ((1 << 30) - grant.size) <= 31_000
    assert 10 <= len(set(stored)) <= 22


def test_an_idle_host_stores_nothing_for_each_of_its_polls() -> None:
    clock, store = SimulatedClock(NOW), MemoryAgentStore()
    limiter = Limiter(store, clock, clock.now)
    limiter.follow(policy(per_day=1 << 30), {})
    stored: set[bytes | None] = set()
    for _ in range(360):
        clock.advance(240)
        limiter.count(2000)
        stored.add(store.load("link_usage"))
    assert len(stored) <= 13


def test_two_downloads_never_share_the_same_last_bytes() -> None:
    clock = SimulatedClock(NOW)
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)
    limiter.follow(policy(per_day=1000), {})
    assert limiter.ask(700) == Grant(700)
    assert limiter.ask(700) == Grant(300)
    assert isinstance(limiter.ask(700), Held)
    limiter.give_back(300)
    assert limiter.ask(700) == Grant(300)


def test_a_zone_this_host_does_not_know_is_taken_for_utc() -> None:
    clock = SimulatedClock(NOW)
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)
    window = OpenWindow(cron="0 22 * * *", duration_s=3600.0)
    link = LinkPolicy(rate=0, windows=(window,))
    limiter.follow(SitePolicy(link=link, time_zone="Atlantis/Harbour"), {})
    held = limiter.ask(1)
    assert isinstance(held, Held) and held.why.endswith("22:00 (UTC)")


def test_a_switch_waits_for_its_window_and_no_longer() -> None:
    clock = SimulatedClock(NOW)
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)
    assert limiter.switch_wait() == ""
    limiter.follow(SitePolicy(switch_windows=(OpenWindow(cron="0 22 * * *", duration_s=3600.0),)), {})
    assert "window at 22:00" in limiter.switch_wait()
    clock.advance(10 * 3600)
    assert limiter.switch_wait() == ""
    clock.advance(3600)
    assert "2026-05-05 22:00" in limiter.switch_wait()
    clock.jump(timedelta(hours=-1))
    assert limiter.switch_wait() == "", "also after the clock was set back"


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────


class CountingBlobs(MemoryBlobs):
    """Counts what the server reads to send it, and the answers under way."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.open, self.most = 0, 0, 0

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async for chunk in super().read(digest, start=start, end=end):
                self.sent += len(chunk)
                yield chunk
        finally:
            self.open -= 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"], datetime.now(UTC))


async def test_over_http_a_budget_is_kept_to_the_byte_and_no_answer_stays_open(
    tmp_path: Path, certificates: Certificates
) -> None:
    backend, blobs = Backend(), CountingBlobs()
    content = random.Random(5).randbytes(3_000_000)
    digest = digest_of(content)
    await blobs.put(digest, content)
    backend.blobs = blobs
    with served(backend, certificates) as url:
        link = HttpLink(url, certificates.ca_pem)
        async with world(tmp_path, link, token=GOOD) as made:
            made.limiter.follow(policy(per_day=1_000_000, rate=500_000), {})
            for day in range(1, 3):
                assert "goes on at" in await made.attempt(digest=digest, size=len(content))
                assert blobs.sent == 1_000_000 * day

                async def closed() -> bool:
                    return blobs.open == 0

                await eventually(closed)
                made.clock.advance(24 * 3600)
            assert await made.attempt(digest=digest, size=len(content)) == ""
            assert made.blobs.path(digest).read_bytes() == content
        link.close()
    assert blobs.sent == len(content)
    assert blobs.most == 1


async def test_over_http_little_is_sent_ahead_of_a_slow_reader(
    tmp_path: Path, certificates: Certificates
) -> None:
    backend = Backend()
    content = bytes(8_000_000)
    digest = digest_of(content)
    await backend.memory.put(digest, content)
    with served(backend, certificates) as url:
        link = HttpLink(url, certificates.ca_pem)
        with link.blob(digest, offset=0, token=GOOD, rate=20_000) as chunks:
            sizes = [len(next(chunks)) for _ in range(5)]
            (connection,) = link._connections
            assert connection.sock is not None
            buffer = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        link.close()
    assert max(sizes) <= 5000
    assert buffer <= 2 * 32768, "the kernel doubles what is asked for"


def test_what_a_sync_takes_is_counted(certificates: Certificates) -> None:
    from tests.unit.carrier_backend import REQUEST

    with served(Backend(), certificates) as url:
        link, counted = HttpLink(url, certificates.ca_pem), list[int]()
        link.on_traffic = counted.append
        link.sync(REQUEST)
        link.close()
    assert len(counted) == 1 and 1024 < counted[0] < 8192


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────


def test_progress_is_told_in_steps() -> None:
    meter = ProgressMeter()
    sizes = {"a": 100_000_000, "b": 20_000_000}
    meter.begin(sizes, 100_000_000, full=sizes)
    told = set[FetchProgress]()
    for tick in range(5 * 60):
        meter.note(20_000)
        told.add(meter.tell(tick / 5, flowing=True))
    assert len(told) <= 8, "6 MB of 120 in a minute: about each ten seconds"
    last = meter.tell(70.0, flowing=True)
    assert (last.done_bytes, last.total_bytes) == (26_000_000, 120_000_000)
    assert last.left_s is not None and last.rate


def test_a_fast_download_is_told_at_each_twentieth_but_not_more_than_once_a_second() -> None:
    meter = ProgressMeter()
    meter.begin({"a": 1000}, 1000, full={"a": 1000})
    told = set[FetchProgress]()
    for tick in range(100):
        meter.note(10)
        told.add(meter.tell(tick / 50, flowing=True))
    assert 2 <= len(told) <= 4


def test_what_is_held_back_has_no_time_to_go_and_no_news() -> None:
    meter = ProgressMeter()
    meter.begin({"a": 1000}, 900, full={"a": 1000})
    told = {meter.tell(float(second), flowing=False) for second in range(3600)}
    (only,) = told
    assert (only.done_bytes, only.rate, only.left_s) == (100, 0, None)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = ProgressMeter()
    meter.begin({"a": 1_000_000}, 1_000_000, full={"a": 1_000_000})
    seen = None
    for second in range(60):
        meter.note(10_000 if second < 30 else 1000)
        seen = meter.tell(float(second), flowing=True)
    assert seen is not None
    assert seen.rate == pytest.approx(1000, rel=0.2)
    assert seen.left_s == pytest.approx((1_000_000 - seen.done_bytes) / seen.rate, abs=1)


async def test_a_fetcher_tells_how_far_each_release_is(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with world(tmp_path, link) as made:
        made.limiter.follow(policy(per_day=40_000), {})
        await made.attempt()
        told = made.fetcher.progress()["release"]
        assert (told.done_bytes, told.total_bytes, told.left_s) == (40_000, len(CONTENT), None)
        made.limiter.follow(SitePolicy(), {})
        assert await made.attempt() == ""
        assert made.fetcher.progress() == {}
