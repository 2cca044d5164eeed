"""What every LocalBlobs keeps: partial blobs grow and are never used; whole ones match their digest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.kit.digests import digest_of
from skerry.kit.errors import Conflict, Missing, Rejected, Unavailable, Untrusted
from skerry.ports.blobs import LocalBlobs
from skerry.testing.faults import FaultPlan, FaultyLocalBlobs, PowerCut
from skerry.testing.memory import MemoryLocalBlobs
from tests.contract.killed import run_and_kill
from tests.contract.tiny_disk import fill, tiny_disk

CONTENT = bytes(range(256)) * 4096
DIGEST = digest_of(CONTENT)
EMPTY = digest_of(b"")

KINDS: dict[str, Callable[[Path], LocalBlobs]] = {
    "directory": lambda path: DirectoryBlobs(path / "deep" / "blobs"),
    "memory": lambda path: MemoryLocalBlobs(path / "blobs"),
    "faulty": lambda path: FaultyLocalBlobs(DirectoryBlobs(path / "blobs"), FaultPlan()),
}


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> LocalBlobs:
    return KINDS[str(request.param)](tmp_path)


def append(blobs: LocalBlobs, *chunks: bytes, offset: int = 0, digest: str = DIGEST) -> int:
    return blobs.append(digest, chunks, offset=offset, limit=len(CONTENT))


def test_a_blob_is_there_after_it_was_put(blobs: LocalBlobs) -> None:
    assert not blobs.has(DIGEST)
    assert blobs.digests() == frozenset()
    for _ in range(2):
        path = blobs.put(DIGEST, CONTENT)
        assert path == blobs.path(DIGEST)
        assert path.read_bytes() == CONTENT
    assert blobs.has(DIGEST)
    assert blobs.digests() == {DIGEST}


def test_a_file_of_the_same_disk_becomes_a_blob_if_it_is_that(blobs: LocalBlobs, tmp_path: Path) -> None:
    file = tmp_path / "carried"
    with pytest.raises(Missing):
        blobs.adopt(DIGEST, file)
    file.write_bytes(CONTENT[1:])
    with pytest.raises(Untrusted):
        blobs.adopt(DIGEST, file)
    assert file.exists()
    assert not blobs.has(DIGEST)
    file.write_bytes(CONTENT)
    for _ in range(2):  # again: an attempt that was cut short had moved it
        assert blobs.adopt(DIGEST, file).read_bytes() == CONTENT
    assert not file.exists()
    assert blobs.digests() == {DIGEST}


def test_a_partial_blob_grows_and_is_not_a_blob_until_it_is_finished(blobs: LocalBlobs) -> None:
    assert blobs.partial_size(DIGEST) == 0
    assert append(blobs, CONTENT[:10], CONTENT[10:1000]) == 1000
    assert append(blobs, CONTENT[1000:], offset=1000) == len(CONTENT)
    assert blobs.partial_size(DIGEST) == len(CONTENT)
    assert not blobs.has(DIGEST)
    assert blobs.digests() == frozenset()
    assert blobs.finish(DIGEST).read_bytes() == CONTENT
    assert blobs.has(DIGEST)
    assert blobs.partial_size(DIGEST) == 0
    assert blobs.finish(DIGEST) == blobs.path(DIGEST), "who comes second finds it done"


def test_an_empty_blob_is_a_blob(blobs: LocalBlobs) -> None:
    assert append(blobs, digest=EMPTY) == 0
    assert blobs.finish(EMPTY).read_bytes() == b""


def test_what_arrived_before_an_error_is_kept(blobs: LocalBlobs) -> None:
    def lost() -> Iterator[bytes]:
        yield CONTENT[:500]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.append(DIGEST, lost(), offset=0, limit=len(CONTENT))
    assert blobs.partial_size(DIGEST) == 500
    append(blobs, CONTENT[500:], offset=500)
    assert blobs.finish(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("offset", (0, 99, 101, 5000))
def test_nothing_is_appended_at_another_place_than_the_end(blobs: LocalBlobs, offset: int) -> None:
    append(blobs, CONTENT[:100])
    with pytest.raises(Conflict):
        append(blobs, b"x" * 10, offset=offset)
    assert blobs.partial_size(DIGEST) == 100


def test_nothing_can_follow_where_nothing_is(blobs: LocalBlobs) -> None:
    with pytest.raises(Conflict):
        append(blobs, CONTENT[5:], offset=5)
    assert blobs.partial_size(DIGEST) == 0


def test_a_stream_that_is_too_long_is_cut_and_not_trusted(blobs: LocalBlobs) -> None:
    append(blobs, CONTENT[:1000])
    with pytest.raises(Untrusted):
        append(blobs, CONTENT[1000:], b"and more", offset=1000)
    assert blobs.partial_size(DIGEST) == len(CONTENT)


@pytest.mark.rule("BLOB-1")
def test_a_partial_blob_that_does_not_match_is_removed_and_never_a_blob(blobs: LocalBlobs) -> None:
    append(blobs, CONTENT[:-1], b"x")
    with pytest.raises(Untrusted):
        blobs.finish(DIGEST)
    assert not blobs.has(DIGEST)
    assert not blobs.path(DIGEST).exists()
    assert blobs.partial_size(DIGEST) == 0


@pytest.mark.rule("BLOB-1")
def test_a_part_of_a_blob_never_becomes_the_blob(blobs: LocalBlobs) -> None:
    append(blobs, CONTENT[:-1])
    with pytest.raises(Untrusted):
        blobs.finish(DIGEST)
    with pytest.raises(Untrusted):
        blobs.finish(DIGEST)
    assert not blobs.has(DIGEST)


@pytest.mark.rule("BLOB-1")
def test_bytes_that_do_not_match_are_never_put(blobs: LocalBlobs) -> None:
    with pytest.raises(Untrusted):
        blobs.put(DIGEST, CONTENT[1:])
    assert not blobs.has(DIGEST)
    blobs.put(DIGEST, CONTENT)
    with pytest.raises(Untrusted):
        blobs.put(DIGEST, CONTENT[1:])
    assert blobs.path(DIGEST).read_bytes() == CONTENT


@pytest.mark.rule("BLOB-1")
def test_a_blob_that_has_rotted_is_found_and_removed(blobs: LocalBlobs) -> None:
    assert not blobs.verify(DIGEST)
    path = blobs.put(DIGEST, CONTENT)
    assert blobs.verify(DIGEST)
    path.write_bytes(CONTENT[:7] + b"x" + CONTENT[8:])
    assert not blobs.verify(DIGEST)
    assert not blobs.has(DIGEST)
    blobs.put(DIGEST, CONTENT)
    assert blobs.verify(DIGEST)


def test_removing_takes_the_blob_and_its_partial_file_and_can_be_repeated(blobs: LocalBlobs) -> None:
    blobs.put(DIGEST, CONTENT)
    append(blobs, CONTENT[:10])
    blobs.put(EMPTY, b"")
    for _ in range(2):
        blobs.remove(DIGEST)
    assert not blobs.has(DIGEST)
    assert blobs.partial_size(DIGEST) == 0
    assert blobs.digests() == {EMPTY}


@pytest.mark.parametrize("name", ("", "sha256:", "sha256:../../x", "/etc/passwd", "sha256:" + "A" * 64))
def test_a_name_that_is_no_digest_is_rejected(blobs: LocalBlobs, name: str) -> None:
    for use in (blobs.has, blobs.path, blobs.partial_size, blobs.finish, blobs.verify, blobs.remove):
        with pytest.raises(Rejected):
            use(name)


def test_two_who_append_to_the_same_blob_take_turns(blobs: LocalBlobs) -> None:
    started, released = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def slow() -> Iterator[bytes]:
        yield CONTENT[:1000]
        started.set()
        released.wait(10)
        yield CONTENT[1000:]

    def second() -> None:
        try:
            append(blobs, b"x" * 10)
        except Conflict:
            outcomes.append("conflict")

    first = threading.Thread(target=lambda: blobs.append(DIGEST, slow(), offset=0, limit=len(CONTENT)))
    first.start()
    assert started.wait(10)
    other = threading.Thread(target=second)
    other.start()
    time.sleep(0.05)
    assert outcomes == [], "the second one waits"
    released.set()
    first.join()
    other.join()
    assert outcomes == ["conflict"]
    assert blobs.finish(DIGEST).read_bytes() == CONTENT


def test_many_who_fetch_the_same_blob_all_end_with_it(blobs: LocalBlobs) -> None:
    failures: list[BaseException] = []

    def fetch() -> None:
        try:
            while not blobs.has(DIGEST):
                offset = blobs.partial_size(DIGEST)
                try:
                    append(blobs, CONTENT[offset : offset + 70_000], offset=offset)
                    if blobs.partial_size(DIGEST) == len(CONTENT):
                        blobs.finish(DIGEST)
                except (Conflict, Untrusted):
                    continue
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert blobs.path(DIGEST).read_bytes() == CONTENT


def test_a_full_memory_keeps_what_arrived(tmp_path: Path) -> None:
    blobs = MemoryLocalBlobs(tmp_path / "blobs", room_bytes=1500)
    with pytest.raises(Unavailable):
        append(blobs, CONTENT[:1000], CONTENT[1000:2000])
    assert blobs.partial_size(DIGEST) == 1500
    with pytest.raises(Unavailable):
        blobs.put(digest_of(b"more"), b"more")
    blobs.room_bytes = None
    append(blobs, CONTENT[1500:], offset=1500)
    assert blobs.finish(DIGEST).read_bytes() == CONTENT


def test_a_full_disk_keeps_what_arrived_and_later_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", size_bytes=3 << 20) as disk:
        blobs = DirectoryBlobs(disk / "blobs")
        append(blobs, CONTENT[:1000])
        ballast = fill(disk)
        with pytest.raises(Unavailable) as caught:
            append(blobs, *(CONTENT[at : at + 1000] for at in range(1000, len(CONTENT), 1000)), offset=1000)
        assert caught.value.code == "disk.full"
        kept = blobs.partial_size(DIGEST)
        assert kept >= 1000
        with pytest.raises(Unavailable):
            blobs.put(digest_of(CONTENT[1:]), CONTENT[1:])
        ballast.unlink()
        append(blobs, CONTENT[kept:], offset=kept)
        assert blobs.finish(DIGEST).read_bytes() == CONTENT
        assert [path.name for path in disk.rglob("*.new")] == []


@pytest.mark.rule("BLOB-1")
def test_after_a_kill_every_blob_matches_and_all_acknowledged_are_there(tmp_path: Path) -> None:
    acknowledged = run_and_kill("blobs", tmp_path / "blobs", lines=10, linger_s=0.2)
    blobs = DirectoryBlobs(tmp_path / "blobs")
    present = blobs.digests()
    assert set(acknowledged) <= present
    assert all(blobs.verify(digest) for digest in present)


def test_a_power_cut_at_any_step_of_a_fetch_leaves_nothing_wrong(tmp_path: Path) -> None:
    for step in range(1, 9):
        for when in ("before", "after"):
            inner = DirectoryBlobs(tmp_path / f"{when}-{step}")
            plan = FaultPlan().kill(nth=step, when="before" if when == "before" else "after")
            blobs = FaultyLocalBlobs(inner, plan)
            try:
                append(blobs, *(CONTENT[at : at + 200_000] for at in range(0, len(CONTENT), 200_000)))
                blobs.finish(DIGEST)
            except PowerCut:
                with pytest.raises(PowerCut):
                    blobs.finish(DIGEST)
            kept = inner.partial_size(DIGEST)
            if not inner.has(DIGEST):
                append(inner, CONTENT[kept:], offset=kept)
                inner.finish(DIGEST)
            assert inner.verify(DIGEST)


def test_partial_files_that_nobody_needs_any_more_are_swept(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    assert blobs.sweep(frozenset(), older_than_s=0) == 0
    old, young, busy, kept = (digest_of(content) for content in (b"old", b"young", b"busy", b"kept"))
    for digest in (old, young, kept):
        append(blobs, b"x", digest=digest)
    week_ago = time.time() - 7 * 86400
    for digest in (old, kept):
        os.utime(tmp_path / "partial" / digest.removeprefix("sha256:"), (week_ago, week_ago))
    blobs.put(DIGEST, CONTENT)

    def sweeping() -> Iterator[bytes]:
        file = tmp_path / "partial" / busy.removeprefix("sha256:")
        os.utime(file, (week_ago, week_ago))
        assert blobs.sweep({kept}, older_than_s=86400) == 1, "only the old one: this one is being written"
        yield b"x"

    blobs.append(busy, sweeping(), offset=0, limit=10)
    assert [blobs.partial_size(digest) for digest in (old, young, busy, kept)] == [0, 1, 1, 1]
    assert blobs.has(DIGEST)
