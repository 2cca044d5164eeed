"""What every Blobs keeps: a blob is there whole and verified, or it is not there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from skerry.adapters.object_blobs import ObjectBlobs
from skerry.kit.digests import digest_of
from skerry.kit.errors import Missing, Rejected, Unavailable, Untrusted
from skerry.ports.blobs import Blobs
from skerry.testing.faults import FaultPlan, FaultyBlobs
from skerry.testing.memory import MemoryBlobs
from tests.contract.tiny_disk import fill, tiny_disk

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = digest_of(CONTENT)
EMPTY = digest_of(b"")

KINDS: dict[str, Callable[[Path], Blobs]] = {
    "directory": lambda path: ObjectBlobs.in_directory(path / "deep" / "store"),
    "object store": lambda _: ObjectBlobs(MemoryStore()),
    "memory": lambda _: MemoryBlobs(),
    "faulty": lambda _: FaultyBlobs(MemoryBlobs(), FaultPlan()),
}


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return KINDS[str(request.param)](tmp_path)


async def whole(blobs: Blobs, digest: str, *, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(digest, start=start, end=end)])


def upload(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path


async def test_a_blob_comes_back_as_it_was_put(blobs: Blobs) -> None:
    assert await blobs.size(DIGEST) is None
    for _ in range(2):
        await blobs.put(DIGEST, CONTENT)
        assert await blobs.size(DIGEST) == len(CONTENT)
        assert await whole(blobs, DIGEST) == CONTENT


async def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    await blobs.put(EMPTY, b"")
    assert await blobs.size(EMPTY) == 0
    assert await whole(blobs, EMPTY) == b""


@pytest.mark.parametrize(
    ("start", "end"),
    ((0, 10), (10, 11), (262_143, 262_145), (1_000_000, None), (5, 5), (2**21, None), (0, 2**30)),
)
async def test_a_range_is_exactly_those_bytes(blobs: Blobs, start: int, end: int | None) -> None:
    await blobs.put(DIGEST, CONTENT)
    assert await whole(blobs, DIGEST, start=start, end=end) == CONTENT[start:end]


async def test_a_large_blob_is_read_in_pieces(blobs: Blobs) -> None:
    await blobs.put(DIGEST, CONTENT)
    sizes = [len(chunk) async for chunk in blobs.read(DIGEST)]
    assert len(sizes) > 1
    assert max(sizes) <= 512 * 1024


@pytest.mark.rule("BLOB-1")
async def test_bytes_that_do_not_match_are_never_stored(blobs: Blobs, tmp_path: Path) -> None:
    file = upload(tmp_path / "upload", CONTENT[:-1] + b"x")
    with pytest.raises(Untrusted):
        await blobs.put(DIGEST, CONTENT[:-1])
    with pytest.raises(Untrusted):
        await blobs.adopt(DIGEST, file)
    assert await blobs.size(DIGEST) is None
    with pytest.raises(Missing):
        await whole(blobs, DIGEST)
    assert file.exists(), "what is wrong with it can be looked at"


@pytest.mark.rule("BLOB-1")
async def test_bytes_that_do_not_match_do_not_replace_those_that_do(blobs: Blobs) -> None:
    await blobs.put(DIGEST, CONTENT)
    with pytest.raises(Untrusted):
        await blobs.put(DIGEST, b"other")
    assert await whole(blobs, DIGEST) == CONTENT


async def test_an_adopted_file_becomes_the_blob_and_is_gone(blobs: Blobs, tmp_path: Path) -> None:
    for _ in range(2):
        file = upload(tmp_path / "upload")
        await blobs.adopt(DIGEST, file)
        assert not file.exists()
        assert await whole(blobs, DIGEST) == CONTENT


async def test_a_blob_that_is_not_there_is_missing(blobs: Blobs) -> None:
    with pytest.raises(Missing):
        await whole(blobs, DIGEST)


@pytest.mark.parametrize(
    "name", ("", "sha256:", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 64)
)
async def test_a_name_that_is_no_digest_is_rejected(blobs: Blobs, name: str) -> None:
    with pytest.raises(Rejected):
        await blobs.size(name)
    with pytest.raises(Rejected):
        await whole(blobs, name)


async def test_many_may_put_the_same_blob_at_a_time(blobs: Blobs, tmp_path: Path) -> None:
    files = [upload(tmp_path / f"upload-{number}") for number in range(4)]
    await asyncio.gather(
        *(blobs.put(DIGEST, CONTENT) for _ in range(4)), *(blobs.adopt(DIGEST, file) for file in files)
    )
    assert await whole(blobs, DIGEST) == CONTENT
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize("removable", (ObjectBlobs(MemoryStore()), MemoryBlobs(), None))
async def test_removing_a_blob_twice_is_fine(
    removable: ObjectBlobs | MemoryBlobs | None, tmp_path: Path
) -> None:
    blobs = removable or ObjectBlobs.in_directory(tmp_path)
    await blobs.put(DIGEST, CONTENT)
    await blobs.remove(DIGEST)
    await blobs.remove(DIGEST)
    assert await blobs.size(DIGEST) is None


async def test_a_full_disk_leaves_no_part_of_a_blob_and_later_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", size_bytes=4 << 20) as disk:
        blobs = ObjectBlobs.in_directory(disk / "store")
        await blobs.put(DIGEST, CONTENT)
        ballast = fill(disk)
        other = CONTENT[::-1]
        file = upload(tmp_path / "upload", other)  # on another file system, so that it must be copied
        for attempt in (blobs.put(digest_of(other), other), blobs.adopt(digest_of(other), file)):
            with pytest.raises(Unavailable) as caught:
                await attempt
            assert caught.value.code == "disk.full"
        assert await blobs.size(digest_of(other)) is None
        assert [path.name for path in disk.rglob("*.new")] == []
        assert await whole(blobs, DIGEST) == CONTENT
        ballast.unlink()
        await blobs.adopt(digest_of(other), file)
        assert await whole(blobs, digest_of(other)) == other
        assert not file.exists()


async def test_a_file_on_the_same_disk_is_moved_and_not_copied(tmp_path: Path) -> None:
    blobs = ObjectBlobs.in_directory(tmp_path / "store")
    file = upload(tmp_path / "upload")
    inode = file.stat().st_ino
    await blobs.adopt(DIGEST, file)
    name = DIGEST.removeprefix("sha256:")
    assert (tmp_path / "store" / "sha256" / name[:2] / name).stat().st_ino == inode


def test_what_a_crash_left_in_staging_is_removed_once_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    old, young = upload(tmp_path / "staging" / "old.new"), upload(tmp_path / "staging" / "young.new")
    long_ago = time.time() - 2 * 86400
    os.utime(old, (long_ago, long_ago))
    ObjectBlobs.in_directory(tmp_path)
    assert not old.exists()
    assert young.exists()
