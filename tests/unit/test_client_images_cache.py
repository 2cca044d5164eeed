"""The cache of unpacked layers: what is kept, what goes, and what several pushes at once do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skerry.client.images.cache import BlobCache, cache_capacity, cache_path
from skerry.client.images.limits import ImageProgress
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.errors import Rejected, Unavailable
from tests.contract.tiny_disk import tiny_disk
from tests.unit.image_files import (
    build_image,
    gzipped,
    one_image,
    two_platforms,
)
from tests.unit.image_reading import contents_of, digests_of, read, refused


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    with BlobCache(tmp_path / "cache") as cache:
        yield cache


def steps(seen: list[ImageProgress]) -> set[str]:
    return {progress.step for progress in seen}


def test_a_second_push_unpacks_nothing(tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "layout")
    first: list[ImageProgress] = []
    again: list[ImageProgress] = []
    with BlobCache(tmp_path / "cache") as cache:
        images = read("oci:layout", cache, tmp_path, first)
    for layer in (*build_image().layers, *build_image("arm64").layers):
        layout.path(digest_of(gzipped(layer))).unlink()  # so nothing can be read from them
    with BlobCache(tmp_path / "cache") as cache:
        assert [digests_of(i) for i in read("oci:layout", cache, tmp_path, again)] == [
            digests_of(i) for i in images
        ]
    assert (steps(first), steps(again)) == ({"unpack"}, {"check"})


def test_a_blob_that_lies_is_removed_and_made_again(tmp_path: Path) -> None:
    built = build_image()
    one_image(tmp_path / "layout", built)
    with BlobCache(tmp_path / "cache") as cache:
        read("oci:layout", cache, tmp_path)
    held = tmp_path / "cache" / "sha256" / hex_of(built.digests[1])
    held.write_bytes(held.read_bytes()[:-1] + b"x")
    seen: list[ImageProgress] = []
    with BlobCache(tmp_path / "cache") as cache:
        (image,) = read("oci:layout", cache, tmp_path, seen)
        assert contents_of(image) == [built.config, *built.layers]
    assert steps(seen) == {"unpack", "check"}


def test_the_blobs_used_longest_ago_go_first_and_only_when_nobody_is_at_work(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with BlobCache(root, capacity_bytes=2500) as cache:
        kept = [cache.put(bytes([n]) * 1000) for n in range(3)]
        assert all(file.path.exists() for file in kept), "nothing goes while a push runs"
        other = BlobCache(root, capacity_bytes=0)
        with other:
            assert other.find(kept[2].digest)
        assert all(file.path.exists() for file in kept), "another push is at work"
        for age, file in enumerate((kept[1], kept[0], kept[2])):
            os.utime(file.path, ns=(10**18 + age, 10**18))
        assert cache.find(kept[1].digest), "now it is the one used last"
    assert [file.path.exists() for file in kept] == [False, True, True]


def test_using_a_blob_does_not_change_it_for_another_push(tmp_path: Path) -> None:
    with BlobCache(tmp_path / "cache") as first, BlobCache(tmp_path / "cache") as second:
        mine = first.put(b"content")
        assert second.find(mine.digest) == mine
        assert second.keep([b"content"], digest=mine.digest) == mine
        assert first.find(mine.digest) == mine


def test_several_pushes_at_once_fill_one_cache(tmp_path: Path) -> None:
    one_image(tmp_path / "layout")

    def push(_: int) -> list[bytes]:
        with BlobCache(tmp_path / "cache", capacity_bytes=0) as cache:
            (image,) = read("oci:layout", cache, tmp_path)
            return contents_of(image)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(push, range(40)))
    assert all(contents == found[0] for contents in found)
    assert not list((tmp_path / "cache" / "sha256").iterdir()), "the last one leaves what fits"


def test_two_downloads_of_the_same_do_not_wait_for_each_other(tmp_path: Path) -> None:
    digest = digest_of(b"content")
    with (
        BlobCache(tmp_path / "cache") as first,
        BlobCache(tmp_path / "cache") as second,
        first.partial(digest) as one,
        second.partial(digest) as other,
    ):
        one.write(b"cont")
        assert (other.tell(), one.tell()) == (0, 4)


def test_a_partial_download_stays_until_it_is_whole(tmp_path: Path, cache: BlobCache) -> None:
    digest = digest_of(b"content")

    def break_off() -> None:
        with cache.partial(digest) as file:
            file.write(b"cont")
            raise Unavailable("cut", "cut")

    with pytest.raises(Unavailable):
        break_off()
    with cache.partial(digest) as file:
        assert file.tell() == 4
    with cache.partial(digest) as file:
        assert file.tell() == 0


def test_what_a_power_cut_left_is_swept_up_and_never_used(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "tmp" / "half"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a layer")
    with BlobCache(tmp_path / "cache") as cache:
        assert cache.find(digest_of(b"half a layer")) is None
    assert not left.exists()


def test_a_push_without_images_needs_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with BlobCache(tmp_path / "file" / "cache"):
        pass
    with pytest.raises(Unavailable) as caught, BlobCache(tmp_path / "file" / "cache") as cache:
        cache.put(b"content")
    assert caught.value.code == "cache.unusable"


def test_a_full_disk_is_told_and_nothing_half_is_left(tmp_path: Path) -> None:
    one_image(tmp_path / "layout")
    with tiny_disk(tmp_path / "disk", size_bytes=1 << 20) as disk, BlobCache(disk / "cache") as cache:
        error = refused("oci:layout", cache, tmp_path)
        assert (error.code, error.retryable, "XDG_CACHE_HOME" in error.hint) == ("disk.full", True, True)
        assert not [file for file in (disk / "cache").rglob("*") if file.is_file() and file.name != "lock"]


def test_the_cache_lies_where_caches_lie() -> None:
    assert cache_path({"XDG_CACHE_HOME": "/var/cache/x", "HOME": "/h"}) == Path("/var/cache/x/skerry/blobs")
    assert cache_path({"HOME": "/h"}) == Path("/h/.cache/skerry/blobs")
    assert (cache_capacity({}), cache_capacity({"SKERRY_CACHE_SIZE": "5GiB"})) == (20 << 30, 5 << 30)
    with pytest.raises(Rejected, match="SKERRY_CACHE_SIZE"):
        cache_capacity({"SKERRY_CACHE_SIZE": "much"})
