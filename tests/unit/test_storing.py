"""A host's blobs on its disk: room is made at the cost of what helps the next delta, never of what is needed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.fetcher import Fetcher, FetchParts
from skerry.agent.releases import Releases
from skerry.agent.storing import Storage
from skerry.carrier.limiting import Limiter
from skerry.kit.digests import digest_of
from skerry.kit.errors import Unavailable
from skerry.ports.blobs import LocalBlobs
from skerry.reconcile.records import ApplicationRecord
from skerry.spec.desired import DiskPolicy, SitePolicy
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore, MemoryLocalBlobs
from skerry.testing.waiting import eventually
from tests.unit.agent_world import FACTS, Upstream
from tests.unit.upstream import NOW, BlobLink

pytestmark = pytest.mark.delivery

KIB = 1 << 10
ROOMY = DiskPolicy()
SIZES = {"low": 2 * KIB, "high": 3 * KIB}


def noise(name: str, size: int = KIB) -> bytes:
    return random.Random(name).randbytes(size)


class Disk:
    """The blobs of a host with the releases 1 to 4: a bundle file of one KiB, and an image of two layers, each."""

    def __init__(self, root: Path, blobs: LocalBlobs | None = None) -> None:
        self.hub = Upstream()
        self.blobs = blobs or DirectoryBlobs(root / "blobs")
        self.releases = Releases(root / "releases", self.blobs)
        self.releases.set_facts(FACTS, SitePolicy())
        self.storage = Storage(self.blobs, self.releases, root)
        self.names: dict[str, str] = {"": ""}
        for version in "1234":
            layers = (noise(f"{version}.low", 2 * KIB), noise(f"{version}.high", 3 * KIB))
            self.names[version] = self.hub.release(version, noise(version), layers=layers).digest

    def bring(self, *versions: str) -> None:
        """Put everything of releases on the disk."""
        for version in versions:
            self.blobs.put(self.names[version], self.hub.contents[self.names[version]])
            for file in self.releases.missing(self.names[version]):
                self.blobs.put(str(file.digest), self.hub.contents[str(file.digest)])

    def load(self, *versions: str) -> None:
        """Let the engine hold the images of releases."""
        images = [parts for version in versions for parts in self.releases.images_of(self.names[version])]
        self.releases.set_loaded({parts.identity for parts in images})

    def follow(
        self,
        policy: DiskPolicy = ROOMY,
        *,
        good: str = "",
        previous: str = "",
        candidate: str = "",
        ahead: str = "",
    ) -> None:
        """Go by one application's releases, by their versions."""
        record = ApplicationRecord("reader", self.names[good], self.names[previous], self.names[candidate])
        self.storage.follow([record], {self.names[version] for version in ahead}, policy)

    def of(self, version: str) -> set[str]:
        return self.releases.blobs_of(self.names[version]) if version else set()

    def layers(self, version: str) -> set[str]:
        return {digest_of(noise(f"{version}.{layer}", size)) for layer, size in SIZES.items()}

    @property
    def taken(self) -> int:
        return sum(self.blobs.path(digest).stat().st_size for digest in self.blobs.digests())


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


# ── what holds always ────────────────────────────────────────────────────────────────────────────────


class Case(msgspec.Struct, frozen=True):
    """Which release is what on a host, what the engine holds, and how much room there is."""

    order: list[str]
    used: set[str]
    loaded: set[str]
    limit: int | None
    wanted: int
    fetching: set[str]

    @property
    def who(self) -> dict[str, str]:
        """Return the version in each role."""
        roles = zip(("good", "previous", "candidate", "ahead"), self.order, strict=True)
        return {role: version if role in self.used else "" for role, version in roles}


_cases = st.builds(
    Case,
    order=st.permutations(["1", "2", "3", "4"]),
    used=st.sets(st.sampled_from(["good", "previous", "candidate", "ahead"])),
    loaded=st.sets(st.sampled_from("1234")),
    limit=st.none() | st.integers(0, 40 * KIB),
    wanted=st.just(0) | st.integers(0, 30 * KIB),
    fetching=st.sets(st.sampled_from("1234"), max_size=1),
)


def made_room(disk: Disk, case: Case) -> str:
    """Make room for what a case wants, and return what was said against it."""
    try:
        disk.storage.make_room(case.wanted, frozenset(digest_of(noise(version)) for version in case.fetching))
    except Unavailable as error:
        return f"{error.code}: {error.message}"
    return ""


@pytest.mark.rule("DISK-1")
@pytest.mark.rule("DISK-2")
@settings(max_examples=60, deadline=None)
@given(case=_cases)
def test_whatever_room_there_is_nothing_goes_that_is_needed(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("host")
    disk, who = Disk(root, MemoryLocalBlobs(root / "blobs")), case.who
    disk.bring("1", "2", "3", "4")
    disk.load(*case.loaded)
    disk.follow(DiskPolicy(blobs=case.limit), **who)
    needed = disk.of(who["good"]) - (disk.layers(who["good"]) if who["good"] in case.loaded else set())
    needed |= disk.of(who["candidate"]) | disk.of(who["ahead"])
    fetching = {digest_of(noise(version)) for version in case.fetching}
    needed |= fetching
    bases = (disk.of(who["previous"]) | disk.of(who["good"])) - needed
    said = made_room(disk, case)
    assert needed <= disk.blobs.digests()
    if said:
        assert said.startswith("disk.full: disk full: ") and " lacking: " in said
        documents = {disk.names[who["previous"]]} - {""}
        least = sum(disk.blobs.path(digest).stat().st_size for digest in needed | documents)
        assert case.limit is not None and least + case.wanted > case.limit, "all that may go was not enough"
    elif case.limit is None:
        assert bases <= disk.blobs.digests(), "nothing that helps goes without need"
    else:
        assert disk.taken + case.wanted <= case.limit
    disk.storage.tidy()
    assert needed - fetching <= disk.blobs.digests()


# ── in detail ────────────────────────────────────────────────────────────────────────────────────────


def test_the_release_before_goes_first_then_the_layers_that_the_engine_holds(disk: Disk) -> None:
    disk.bring("1", "2")
    disk.load("2")
    disk.follow(DiskPolicy(blobs=disk.taken), good="2", previous="1")
    document = disk.names["1"]
    disk.storage.make_room(KIB, frozenset())
    assert disk.of("2") <= disk.blobs.digests()
    assert document in disk.blobs.digests()
    for _ in range(10):
        before = disk.blobs.digests()
        disk.follow(DiskPolicy(blobs=disk.taken - 1), good="2", previous="1")
        disk.storage.make_room(0, frozenset())
        gone = before - disk.blobs.digests()
        assert len(gone) == 1
        if disk.of("1") & before - {document}:
            assert gone <= disk.of("1"), "while there is any of the release before"
        else:
            assert gone <= disk.layers("2")
            break
    assert disk.of("2") - disk.layers("2") <= disk.blobs.digests()


def test_layers_that_the_engine_does_not_hold_stay(disk: Disk) -> None:
    disk.bring("2")
    disk.follow(DiskPolicy(blobs=0), good="2")
    disk.storage.tidy()
    assert disk.of("2") <= disk.blobs.digests()


@pytest.mark.rule("DISK-2")
@pytest.mark.parametrize("keep_free", (1 << 60, None))
def test_what_cannot_fit_is_said_in_bytes_and_costs_nothing(disk: Disk, keep_free: int | None) -> None:
    disk.bring("1", "2")
    disk.load("2")
    limit = None if keep_free else disk.taken
    disk.follow(DiskPolicy(keep_free=keep_free, blobs=limit), good="2", previous="1")
    before = disk.blobs.digests()
    with pytest.raises(
        Unavailable, match=r"^disk full: [0-9.]+ [KMGTPE]iB lacking: .*20\.0 KiB to fetch"
    ) as caught:
        disk.storage.make_room(20 * KIB, frozenset())
    assert caught.value.code == "disk.full"
    assert disk.blobs.digests() == before


def test_what_has_come_of_a_blob_counts_towards_the_limit(disk: Disk) -> None:
    disk.bring("1")
    target, here = digest_of(noise("2")), disk.taken
    disk.blobs.append(target, [noise("2")[:600]], offset=0, limit=KIB)
    disk.follow(DiskPolicy(blobs=here + KIB - 1), good="1")
    with pytest.raises(Unavailable, match="1 B lacking"):
        disk.storage.make_room(KIB - 600, frozenset({target}))
    assert disk.blobs.partial_size(target) == 600
    disk.follow(DiskPolicy(blobs=here + KIB), good="1")
    disk.storage.make_room(KIB - 600, frozenset({target}))


def test_tidying_removes_what_nobody_names_and_keeps_bases_while_there_is_room(disk: Disk) -> None:
    disk.bring("1", "2", "3")
    disk.load("2")
    disk.follow(good="2", previous="1")
    stray = digest_of(b"stray")
    disk.blobs.put(stray, b"stray")
    disk.storage.tidy()
    assert disk.blobs.digests() == disk.of("1") | disk.of("2")
    disk.follow(DiskPolicy(blobs=0), good="2", previous="1")
    disk.storage.tidy()
    assert disk.blobs.digests() == disk.of("2") - disk.layers("2") | {disk.names["1"]}


def test_tidying_sweeps_what_came_in_part_and_has_not_grown_for_a_day(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.bring("1")
    parts = {
        "stray": digest_of(noise("stray")),
        "fresh": digest_of(noise("fresh")),
        "2": digest_of(noise("2")),
    }
    disk.blobs.put(disk.names["2"], disk.hub.contents[disk.names["2"]])
    for name, digest in parts.items():
        disk.blobs.append(digest, [noise(name)[:500]], offset=0, limit=KIB)
        if name != "fresh":
            (file,) = (tmp_path / "blobs" / "partial").glob(digest.removeprefix("sha256:"))
            long_ago = file.stat().st_mtime - 2 * 86400
            os.utime(file, (long_ago, long_ago))
    disk.follow(good="1", candidate="2")
    disk.storage.tidy()
    assert {name: disk.blobs.partial_size(digest) for name, digest in parts.items()} == {
        "stray": 0,
        "fresh": 500,
        "2": 500,
    }


@pytest.mark.rule("DISK-1")
def test_a_good_release_whose_document_was_damaged_loses_nothing_until_it_is_here_again(disk: Disk) -> None:
    disk.bring("1", "2")
    disk.follow(DiskPolicy(blobs=0), good="2")
    disk.blobs.remove(disk.names["2"])
    again = Releases(Path(disk.blobs.path(disk.names["2"])).parents[3] / "again", disk.blobs)
    again.set_facts(FACTS, SitePolicy())
    storage = Storage(disk.blobs, again, disk.blobs.path(disk.names["2"]).parents[3])
    storage.follow([ApplicationRecord("reader", good=disk.names["2"])], frozenset(), DiskPolicy(blobs=0))
    before = disk.blobs.digests()
    storage.tidy()
    assert disk.blobs.digests() == before
    disk.bring("2")
    storage.tidy()
    assert disk.blobs.digests() == disk.of("2")


def test_a_release_that_is_laid_out_runs_on_without_its_blobs(tmp_path: Path) -> None:
    """Files are laid out as hard links: what a blob's removal takes away is one of two names."""
    disk = Disk(tmp_path)
    disk.bring("1", "2")
    disk.load("1", "2")
    disk.releases.prepare(disk.names["1"])
    laid = disk.releases.folder(disk.names["1"]) / "bundles" / "main" / "run"
    assert laid.stat().st_ino == disk.blobs.path(digest_of(noise("1"))).stat().st_ino
    with laid.open("rb") as running:
        disk.follow(DiskPolicy(blobs=0), good="2", previous="1")
        disk.storage.tidy()
        assert not disk.blobs.has(digest_of(noise("1")))
        assert running.read() == noise("1")
    assert laid.read_bytes() == noise("1")
    fact = disk.releases.fact(disk.names["1"])
    assert fact is not None
    assert (fact.prepared, fact.missing_bytes) == (True, 0)
    again = Releases(tmp_path / "releases", disk.blobs)
    assert again.laid_out() == {disk.names["1"]}, "also after a restart"


# ── with the fetcher ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.rule("DISK-2")
@pytest.mark.parametrize("policy", (DiskPolicy(keep_free=1 << 60), DiskPolicy(blobs=10 * KIB)))
async def test_a_download_that_does_not_fit_is_not_begun_and_begins_when_there_is_room(
    tmp_path: Path, policy: DiskPolicy
) -> None:
    disk, clock = Disk(tmp_path), SimulatedClock(NOW)
    disk.bring("1")
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)

    def token(*, renew: bool = False) -> str:
        return "good"

    fetcher = Fetcher(FetchParts(disk.blobs, disk.hub, clock, token, tmp_path, limiter))
    fetcher.make_room = disk.storage.make_room
    changes: list[str] = []
    fetcher.on_change = lambda: changes.append(fetcher.troubles.get("2", ""))

    async def attempt() -> str:
        clock.advance(61)
        before = len(changes)
        fetcher.want("2", [(digest_of(noise("2")), KIB), (digest_of(noise("2.high", 3 * KIB)), 3 * KIB)])

        async def ended() -> bool:
            return len(changes) > before

        await eventually(ended)
        return changes[-1]

    try:
        disk.follow(policy, good="1")
        why = await attempt()
        assert why.startswith("disk full: ") and "lacking: " in why and "4.0 KiB to fetch" in why
        assert disk.hub.asked == []
        assert disk.of("1") <= disk.blobs.digests()
        disk.follow(DiskPolicy(blobs=disk.taken + 4 * KIB), good="1")
        assert await attempt() == ""
        assert disk.blobs.has(digest_of(noise("2")))
    finally:
        await fetcher.close()


@pytest.mark.rule("DISK-1")
async def test_room_for_one_download_is_not_made_of_what_another_is_fetching(tmp_path: Path) -> None:
    disk, clock = Disk(tmp_path), SimulatedClock(NOW)
    gate, first, second = threading.Event(), noise("first"), noise("second")

    class Gated(BlobLink):
        @contextmanager
        def blob(
            self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
        ) -> Generator[Iterator[bytes]]:
            assert gate.wait(30)
            with super().blob(digest, offset=offset, token=token, limit=limit, rate=rate) as chunks:
                yield chunks

    link = Gated({digest_of(content): content for content in (first, second)})
    limiter = Limiter(MemoryAgentStore(), clock, clock.now)

    def token(*, renew: bool = False) -> str:
        return "good"

    fetcher = Fetcher(FetchParts(disk.blobs, link, clock, token, tmp_path, limiter))
    kept: list[frozenset[str]] = []
    fetcher.make_room = lambda _, fetching: kept.append(fetching)

    async def asked(times: int) -> None:
        async def enough() -> bool:
            return len(kept) >= times

        await eventually(enough)

    try:
        fetcher.want("one", [(digest_of(first), len(first))])
        await asked(1)
        fetcher.want("two", [(digest_of(second), len(second))])
        await asked(2)
        assert kept[1] == {digest_of(first), digest_of(second)} == fetcher.uses()
    finally:
        gate.set()
        await fetcher.close()
