"""The fetcher: resumes at the byte, verifies before use, waits longer after each failure, and says what hinders it."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.agent.fetcher import Fetcher, FetchParts
from skerry.carrier.limiting import Limiter
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.ports.blobs import LocalBlobs
from skerry.testing.clock import SimulatedClock
from skerry.testing.faults import FaultPlan, FaultyLocalBlobs
from skerry.testing.memory import MemoryAgentStore, MemoryLocalBlobs
from skerry.testing.waiting import eventually
from tests.unit.upstream import NOW, BlobLink

pytestmark = pytest.mark.delivery

CONTENT = random.Random(7).randbytes(10_000)
DIGEST = digest_of(CONTENT)


class Host:
    """A fetcher with its surroundings."""

    def __init__(self, root: Path, link: BlobLink, blobs: LocalBlobs | None = None) -> None:
        self.link = link
        self.blobs = blobs or MemoryLocalBlobs(root / "blobs")
        self.clock = SimulatedClock(NOW)
        self.tokens = ["good"]
        self.renewed = 0
        self.changes = 0
        self.limiter = Limiter(MemoryAgentStore(), self.clock, self.clock.now)
        self.fetcher = Fetcher(
            FetchParts(self.blobs, link, self.clock, token=self.token, root=root, limiter=self.limiter)
        )
        self.fetcher.on_change = self.note_change

    def token(self, *, renew: bool = False) -> str:
        if renew:
            self.renewed += 1
            self.tokens = self.tokens[1:] or self.tokens
        return self.tokens[0]

    def note_change(self) -> None:
        self.changes += 1

    async def attempt(self, digest: str = DIGEST, size: int = len(CONTENT)) -> str:
        """Fetch once, as the reconcile loop would ask for it, and return what hindered it."""
        self.clock.advance(61)
        before = self.changes
        self.fetcher.want("release", [(digest, size)])
        await self.until(lambda: self.changes > before)
        return self.fetcher.troubles.get("release", "")

    def begins(self) -> bool:
        """Ask for the blob, twice, and tell whether that began one download."""
        before = asyncio.all_tasks()
        for _ in range(2):
            self.fetcher.want("release", [(DIGEST, len(CONTENT))])
        begun = asyncio.all_tasks() - before
        assert len(begun) <= 1
        return bool(begun)

    async def until(self, condition: Callable[[], bool]) -> None:
        async def look() -> bool:
            return condition()

        await eventually(look)


@asynccontextmanager
async def host(root: Path, link: BlobLink, blobs: LocalBlobs | None = None) -> AsyncGenerator[Host]:
    made = Host(root, link, blobs)
    try:
        yield made
    finally:
        await made.fetcher.close()


async def test_a_blob_that_is_cut_off_is_resumed_at_the_byte(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    link.cuts = [1, 0, 3333, 2500]
    async with host(tmp_path, link) as made:
        for _ in range(4):
            assert "cut off" in await made.attempt()
            assert not made.blobs.has(DIGEST)
        assert await made.attempt() == ""
        assert made.blobs.path(DIGEST).read_bytes() == CONTENT
    assert [offset for offset, _ in link.asked] == [0, 1, 1, 3334, 5834]
    assert link.sent_bytes == len(CONTENT)


async def test_another_agent_goes_on_where_the_one_before_was_ended(tmp_path: Path) -> None:
    link, blobs = BlobLink({DIGEST: CONTENT}), MemoryLocalBlobs(tmp_path / "blobs")
    link.cuts = [4000]
    async with host(tmp_path, link, blobs) as made:
        await made.attempt()
    async with host(tmp_path, link, blobs) as made:
        assert await made.attempt() == ""
    assert link.sent_bytes == len(CONTENT)


@pytest.mark.rule("BLOB-1")
@settings(max_examples=40)
@given(
    kind=st.sampled_from(["altered", "short", "long", "other", "empty"]),
    position=st.integers(0, len(CONTENT) - 1),
    cuts=st.lists(st.integers(0, 5000), max_size=2),
)
def test_what_a_carrier_altered_never_becomes_a_blob(
    kind: str, position: int, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    wrong = {
        "altered": CONTENT[:position] + bytes([CONTENT[position] ^ 1]) + CONTENT[position + 1 :],
        "short": CONTENT[:position],
        "long": CONTENT + b"x",
        "other": bytes(len(CONTENT)),
        "empty": b"",
    }[kind]

    async def scenario() -> None:
        link = BlobLink({DIGEST: wrong})
        link.cuts = list(cuts)
        async with host(tmp_path_factory.mktemp("host"), link) as made:
            for _ in range(len(cuts) + 1):
                assert await made.attempt() != ""
                assert not made.blobs.has(DIGEST)
            link.contents, link.cuts = dict[str, bytes]({DIGEST: CONTENT}), []
            # What is left of the wrong bytes may cost one attempt, and is gone then.
            assert "" in [await made.attempt(), await made.attempt()]
            assert made.blobs.path(DIGEST).read_bytes() == CONTENT

    asyncio.run(scenario())


async def test_a_full_disk_is_said_and_the_blob_resumed_when_there_is_room(tmp_path: Path) -> None:
    link, blobs = BlobLink({DIGEST: CONTENT}), MemoryLocalBlobs(tmp_path / "blobs", room_bytes=2500)
    async with host(tmp_path, link, blobs) as made:
        assert "no room" in await made.attempt()
        assert "no room" in await made.attempt()
        blobs.room_bytes = None
        assert await made.attempt() == ""
        assert blobs.has(DIGEST)
    assert [offset for offset, _ in link.asked] == [0, 2500, 2500]


async def test_a_download_that_would_fill_the_disk_is_not_begun(tmp_path: Path) -> None:
    link = BlobLink({})
    async with host(tmp_path, link) as made:
        assert (await made.attempt(DIGEST, 1 << 50)).startswith("disk full: ")
    assert link.asked == []


async def test_a_refused_token_is_renewed(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with host(tmp_path, link) as made:
        made.tokens = ["old", "good"]
        assert "expired" in await made.attempt()
        assert made.renewed == 1
        assert await made.attempt() == ""
    assert [token for _, token in link.asked] == ["old", "good"]


async def test_without_a_token_it_says_that_it_waits(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    async with host(tmp_path, link) as made:
        made.tokens = [""]
        assert "waiting" in await made.attempt()
        made.tokens = ["good"]
        assert await made.attempt() == ""


@pytest.mark.parametrize("kind", ("link", "disk"))
async def test_failures_are_retried_ever_more_slowly_up_to_a_minute(tmp_path: Path, kind: str) -> None:
    random.seed(5)
    link, plan = BlobLink({DIGEST: CONTENT}), FaultPlan()
    for nth in range(1, 30):
        error = OSError(errno.EIO, "I/O error") if kind == "disk" else Unavailable("link.cut", "cut off")
        plan.fail("append", error, nth=nth)
    async with host(tmp_path, link, FaultyLocalBlobs(MemoryLocalBlobs(tmp_path / "blobs"), plan)) as made:
        waits: list[float] = []
        for _ in range(10):
            began, changes = made.clock.monotonic(), made.changes
            while not made.begins():
                made.clock.advance(0.25)
            await made.until(lambda changes=changes: made.changes > changes)  # type: ignore[misc]
            waits.append(made.clock.monotonic() - began)
        assert waits[1] <= 2.25
        assert sum(waits[6:]) > 4 * sum(waits[:4])
        assert max(waits) <= 61
        assert made.fetcher.troubles["release"]


async def test_an_empty_file_is_there_without_asking(tmp_path: Path) -> None:
    link = BlobLink({})
    async with host(tmp_path, link) as made:
        made.tokens = [""]
        assert await made.attempt(digest_of(b""), 0) == ""
        assert made.blobs.path(digest_of(b"")).read_bytes() == b""
    assert link.asked == []


async def test_what_is_wanted_no_more_is_forgotten_with_its_troubles(tmp_path: Path) -> None:
    link = BlobLink({DIGEST: CONTENT})
    link.cuts = [10]
    async with host(tmp_path, link) as made:
        assert await made.attempt() != ""
        made.fetcher.forget(set())
        assert made.fetcher.troubles == {}
        before = made.changes
        made.fetcher.want("release", [(DIGEST, len(CONTENT))])  # at once: its back-off is forgotten as well
        await made.until(lambda: made.changes > before)
        assert made.blobs.has(DIGEST)
