"""Images from files: what is read, what it is pinned to, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.client.images import limits
from skerry.client.images.assembly import PlatformImage
from skerry.client.images.cache import BlobCache, cache_capacity, cache_path
from skerry.client.images.limits import ImageProgress
from skerry.client.images.platforms import parse_platform, requirements_of
from skerry.client.images.reader import ImageReader
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.errors import Rejected, SkerryError, Unavailable
from tests.contract.tiny_disk import tiny_disk
from tests.unit.image_files import (
    OCI_MANIFEST,
    BuiltImage,
    Layout,
    build_image,
    gzipped,
    one_image,
    plain,
    platform,
    saved_files,
    tar_of,
    two_platforms,
)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    with BlobCache(tmp_path / "cache") as cache:
        yield cache


def read(
    source: str, cache: BlobCache, folder: Path, seen: list[ImageProgress] | None = None
) -> list[PlatformImage]:
    told = seen if seen is not None else []
    return ImageReader(cache, told.append, environment={}).read(source, folder)


def digests_of(image: PlatformImage) -> list[str]:
    return [image.config.digest, *(layer.digest for layer in image.layers)]


def contents_of(image: PlatformImage) -> list[bytes]:
    """Return what would be uploaded."""
    parts: list[bytes] = []
    for source in (image.config, *image.layers):
        with source.path.open("rb") as file:
            file.seek(source.start)
            parts.append(file.read(source.size_bytes))
    return parts


def refused(source: str, cache: BlobCache, folder: Path) -> SkerryError:
    with pytest.raises(SkerryError) as caught:
        read(source, cache, folder)
    return caught.value


def saved(folder: Path, files: dict[str, bytes]) -> Path:
    file = folder / "app.tar"
    file.write_bytes(tar_of(files))
    return file


# Every form gives the same.


def as_layout(folder: Path, built: BuiltImage) -> str:
    return f"oci:{one_image(folder / 'layout', built).folder.name}"


def as_plain_layout(folder: Path, built: BuiltImage) -> str:
    return f"oci:{one_image(folder / 'layout', built, plain).folder.name}"


def as_archive(folder: Path, built: BuiltImage) -> str:
    return f"oci-archive:{one_image(folder / 'layout', built).archive(folder / 'app.tar').name}"


def as_saved(folder: Path, built: BuiltImage) -> str:
    return f"docker-archive:{saved(folder, saved_files(built)).name}"


def as_compressed(folder: Path, built: BuiltImage) -> str:
    (folder / "app.tar.gz").write_bytes(gzipped(saved(folder, saved_files(built)).read_bytes()))
    (folder / "app.tar").unlink()
    return "docker-archive:app.tar.gz"


FORMS: tuple[Callable[[Path, BuiltImage], str], ...] = (
    as_layout,
    as_plain_layout,
    as_archive,
    as_saved,
    as_compressed,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_is_pinned_to_the_same_digests(
    tmp_path: Path, cache: BlobCache, form: Callable[[Path, BuiltImage], str]
) -> None:
    built = build_image()
    (image,) = read(form(tmp_path, built), cache, tmp_path)
    assert digests_of(image) == built.digests
    assert contents_of(image) == [built.config, *built.layers]
    assert image.platform.text == "linux/amd64"


def test_uncompressed_layers_are_not_copied(tmp_path: Path, cache: BlobCache) -> None:
    (image,) = read(as_saved(tmp_path, build_image()), cache, tmp_path)
    assert {layer.path for layer in image.layers} == {tmp_path / "app.tar"}


def test_gzip_of_several_members_is_one_layer(tmp_path: Path, cache: BlobCache) -> None:
    def in_pieces(content: bytes) -> bytes:
        return b"".join(gzipped(content[n : n + 1000]) for n in range(0, len(content), 1000))

    built = build_image()
    one_image(tmp_path / "layout", built, in_pieces)
    (image,) = read("oci:layout", cache, tmp_path)
    assert digests_of(image) == built.digests


def test_a_large_layer_that_shrinks_to_nothing_is_unpacked_whole(tmp_path: Path, cache: BlobCache) -> None:
    layer = tar_of({"zeros": bytes(20_000_001)})
    config = json.loads(build_image().config)
    config["rootfs"]["diff_ids"] = [digest_of(layer)]
    built = BuiltImage(json.dumps(config).encode(), (layer,))
    one_image(tmp_path / "layout", built)
    assert digests_of(read("oci:layout", cache, tmp_path)[0]) == built.digests


def test_zstd_layers_are_read_and_damaged_ones_refused(tmp_path: Path, cache: BlobCache) -> None:
    if sys.version_info >= (3, 14):
        from compression.zstd import compress
    else:
        from backports.zstd import compress

    def zstd(content: bytes) -> bytes:
        return compress(content)

    built = build_image()
    one_image(tmp_path / "layout", built, zstd)
    assert digests_of(read("oci:layout", cache, tmp_path)[0]) == built.digests

    def damaged(content: bytes) -> bytes:
        whole = bytearray(zstd(content))
        whole[len(whole) // 2] ^= 0xFF
        return bytes(whole)

    other = build_image(contents=("another", "program"))
    one_image(tmp_path / "damaged", other, damaged)
    assert refused("oci:damaged", cache, tmp_path).code in ("image.layer_damaged", "image.layer_mismatch")


# Platforms.


def test_an_index_gives_one_image_per_platform_and_no_attestation(tmp_path: Path, cache: BlobCache) -> None:
    two_platforms(tmp_path / "layout")
    images = read("oci:layout", cache, tmp_path)
    assert [image.platform.name for image in images] == ["linux-amd64", "linux-arm64-v8"]
    assert [digests_of(image) for image in images] == [build_image().digests, build_image("arm64").digests]


def test_only_the_platform_that_is_wanted_is_read(tmp_path: Path, cache: BlobCache) -> None:
    layout = two_platforms(tmp_path / "layout")
    layout.path(digest_of(gzipped(build_image().layers[0]))).unlink()
    reader = ImageReader(cache, lambda _: None, environment={})
    (image,) = reader.read("oci:layout", tmp_path, wanted=parse_platform("linux/arm64"))
    assert digests_of(image) == build_image("arm64").digests


def test_other_systems_are_passed_over_and_alone_refused(tmp_path: Path, cache: BlobCache) -> None:
    layout = Layout(tmp_path / "layout")
    windows = layout.image(build_image(os="windows"), **platform("amd64", os="windows"))
    layout.index([windows, layout.image(build_image(), **platform("amd64"))])
    assert len(read("oci:layout", cache, tmp_path)) == 1
    layout.index([windows])
    assert refused("oci:layout", cache, tmp_path).code == "image.no_platform"


def test_an_image_that_is_for_another_platform_than_its_index_says_is_refused(
    tmp_path: Path, cache: BlobCache
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.index([layout.image(build_image("amd64"), **platform("arm64"))])
    error = refused("oci:layout", cache, tmp_path)
    assert error.code == "image.platform_mismatch"
    assert "linux/arm64" in error.message and "linux/amd64" in error.message


def test_of_several_names_one_must_be_named(tmp_path: Path, cache: BlobCache) -> None:
    def named(name: str) -> dict[str, Any]:
        return {"annotations": {"org.opencontainers.image.ref.name": name}}

    layout = Layout(tmp_path / "layout")
    old, new = build_image(contents=("old",)), build_image(contents=("new",))
    layout.index([layout.image(old, **named("1.0")), layout.image(new, **named("1.1"))])
    assert "1.0, 1.1" in refused("oci:layout", cache, tmp_path).message
    assert digests_of(read("oci:layout:1.1", cache, tmp_path)[0]) == new.digests
    assert "known here: 1.0, 1.1" in refused("oci:layout:2.0", cache, tmp_path).hint


@pytest.mark.parametrize(
    ("text", "arch", "level"),
    (
        ("linux/amd64", ("x86_64",), ""),
        ("linux/amd64/v3", ("x86_64",), "x86-64-v3"),
        ("linux/arm64/v8", ("aarch64",), ""),
        ("linux/arm/v7", ("armv7l", "armv8l"), ""),
        ("linux/arm/v6", ("armv6l", "armv7l", "armv8l"), ""),
        ("linux/riscv64", ("riscv64",), ""),
    ),
)
def test_a_platform_becomes_requirements_in_the_words_of_facts(
    text: str, arch: tuple[str, ...], level: str
) -> None:
    requires = requirements_of(parse_platform(text))
    assert (requires.arch, requires.arch_level) == (arch, level)


# What is refused.


def test_a_layer_that_is_not_what_the_configuration_says_is_named_with_both_digests(
    tmp_path: Path, cache: BlobCache
) -> None:
    built = build_image()
    other = tar_of({"evil": b"evil"})
    one_image(tmp_path / "layout", BuiltImage(built.config, (built.layers[0], other)))
    error = refused("oci:layout", cache, tmp_path)
    assert (error.code, error.exit_code) == ("image.layer_mismatch", 2)
    for part in ("layer 2 of 2", digest_of(other), digest_of(built.layers[1])):
        assert part in error.message


def test_an_uncompressed_layer_that_was_exchanged_is_refused(tmp_path: Path, cache: BlobCache) -> None:
    files = saved_files(build_image())
    name = next(name for name in files if name.endswith("layer.tar"))
    saved(tmp_path, {**files, name: tar_of({"evil": b"evil"})})
    assert refused("docker-archive:app.tar", cache, tmp_path).code == "image.layer_mismatch"


def test_a_configuration_that_is_not_what_its_name_says_is_refused(tmp_path: Path, cache: BlobCache) -> None:
    built = build_image()
    files = saved_files(built)
    saved(tmp_path, {**files, f"{hex_of(built.digests[0])}.json": built.config + b" "})
    assert refused("docker-archive:app.tar", cache, tmp_path).code == "image.digest_mismatch"


def test_a_manifest_or_configuration_that_was_changed_is_refused(tmp_path: Path, cache: BlobCache) -> None:
    built = build_image()
    layout = one_image(tmp_path / "layout", built)
    layout.path(built.digests[0]).write_bytes(built.config.replace(b"/bin/true", b"/bin/evil"))
    assert refused("oci:layout", cache, tmp_path).code == "image.digest_mismatch"
    layout.path(built.digests[0]).write_bytes(built.config)
    manifest = json.loads((layout.folder / "index.json").read_text())["manifests"][0]["digest"]
    layout.path(manifest).write_bytes(layout.path(manifest).read_bytes().replace(b"vnd.oci", b"vnd.ico"))
    assert refused("oci:layout", cache, tmp_path).code == "image.digest_mismatch"


@pytest.mark.parametrize(
    ("content", "code"),
    (
        (b'{"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": []}', "image.schema1"),
        (
            b'{"schemaVersion": 2, "config": {"digest": "sha256:00", "size": 1}, "layers": []}',
            "digest.malformed",
        ),
        (b'{"schemaVersion": 2}', "image.malformed"),
        (b"[" * 10_000, "image.malformed"),
        (b"\xff", "image.malformed"),
        (b" " * (limits.MAX_DOCUMENT_BYTES + 1), "image.malformed"),
        (
            json.dumps(
                {
                    "schemaVersion": 2,
                    "config": {"digest": "sha256:" + "0" * 64, "size": 1},
                    "layers": [{"digest": "sha256:" + "0" * 64, "size": 1}] * 128,
                }
            ).encode(),
            "image.malformed",
        ),
        (
            json.dumps(
                {"schemaVersion": 2, "manifests": [{"digest": "sha256:" + "0" * 64, "size": 1}] * 65}
            ).encode(),
            "image.malformed",
        ),
    ),
)
def test_what_is_no_manifest_is_refused_by_name(
    tmp_path: Path, cache: BlobCache, content: bytes, code: str
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.index([layout.blob(content, OCI_MANIFEST)])
    assert refused("oci:layout", cache, tmp_path).code == code


def test_an_index_in_an_index_for_ever_is_refused(tmp_path: Path, cache: BlobCache) -> None:
    layout = Layout(tmp_path / "layout")
    inner = layout.image(build_image())
    for _ in range(8):
        inner = layout.nested([inner])
    layout.index([inner])
    assert "nested deeper" in refused("oci:layout", cache, tmp_path).message


def test_an_image_whose_layers_are_missing_or_too_many_is_refused(tmp_path: Path, cache: BlobCache) -> None:
    built = build_image()
    one_image(tmp_path / "layout", BuiltImage(built.config, built.layers[:1]))
    assert "1 layers" in refused("oci:layout", cache, tmp_path).message
    layout = one_image(tmp_path / "other", built)
    layout.path(digest_of(gzipped(built.layers[1]))).unlink()
    error = refused("oci:other", cache, tmp_path)
    assert (error.code, hex_of(digest_of(gzipped(built.layers[1]))) in error.message) == (
        "image.incomplete",
        True,
    )


def test_an_expansion_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, cache: BlobCache) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    with pytest.raises(Rejected, match="larger than"), cache.spool(endless(), limit_bytes=5 << 20):
        pass
    assert not list((tmp_path / "cache" / "tmp").iterdir())


@pytest.mark.parametrize("name", ("../escape", "/etc/passwd", "a/../../b", "blobs/../../x"))
def test_a_name_that_leads_out_of_the_archive_is_refused_and_nothing_written(
    tmp_path: Path, cache: BlobCache, name: str
) -> None:
    saved(tmp_path, {**saved_files(build_image()), name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    error = refused("docker-archive:app.tar", cache, tmp_path)
    assert (error.code, name in error.message, str(tmp_path / "app.tar") in error.message) == (
        "image.archive",
        True,
        True,
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path, cache: BlobCache) -> None:
    first = tar_of(saved_files(build_image()))
    (tmp_path / "app.tar").write_bytes(
        first.rstrip(b"\0").ljust(-(-len(first.rstrip(b"\0")) // 512) * 512, b"\0")
    )
    with (tmp_path / "app.tar").open("ab") as file:
        file.write(tar_of({"manifest.json": b"[]"}))
    assert "there twice" in refused("docker-archive:app.tar", cache, tmp_path).message


def links(
    folder: Path, files: dict[str, bytes], linked: dict[str, str], kind: bytes = tarfile.SYMTYPE
) -> None:
    with tarfile.open(folder / "app.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in linked.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)


@pytest.mark.parametrize("kind", (tarfile.SYMTYPE, tarfile.LNKTYPE))
def test_a_link_in_the_place_of_a_layer_is_not_followed(
    tmp_path: Path, cache: BlobCache, kind: bytes
) -> None:
    files = saved_files(build_image())
    name = next(name for name in files if name.endswith("layer.tar"))
    (tmp_path / "secret").write_bytes(files.pop(name))
    links(tmp_path, files, {name: "../secret"}, kind)
    error = refused("docker-archive:app.tar", cache, tmp_path)
    assert (error.code, "is a link" in error.message, name in error.message) == ("image.archive", True, True)


def test_a_link_to_a_layer_that_is_there_twice_is_no_obstacle(tmp_path: Path, cache: BlobCache) -> None:
    layer = tar_of({"same": b"same"})
    config = json.loads(build_image().config)
    config["rootfs"]["diff_ids"] = [digest_of(layer)] * 2
    built = BuiltImage(json.dumps(config).encode(), (layer, layer))
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files = {
        "config.json": built.config,
        "a/layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    links(tmp_path, files, {"b/layer.tar": "../a/layer.tar"})
    assert digests_of(read("docker-archive:app.tar", cache, tmp_path)[0]) == built.digests


@pytest.mark.parametrize("kind", (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S"))
def test_devices_pipes_and_files_with_holes_are_refused(
    tmp_path: Path, cache: BlobCache, kind: bytes
) -> None:
    links(tmp_path, saved_files(build_image()), {"strange": ""}, kind)
    assert "neither a file nor a directory" in refused("docker-archive:app.tar", cache, tmp_path).message


@pytest.mark.parametrize("format", (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
def test_long_names_are_read_in_every_dialect(tmp_path: Path, cache: BlobCache, format: int) -> None:
    built = build_image()
    names = [f"{'long/' * 40}{n}.tar"[-250:].lstrip("/") for n in range(2)]
    manifest = [{"Config": "config.json", "RepoTags": [], "Layers": names}]
    files = dict(zip(names, built.layers, strict=True))
    files |= {"config.json": built.config, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(tmp_path / "app.tar", "w", format=format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert digests_of(read("docker-archive:app.tar", cache, tmp_path)[0]) == built.digests


def test_an_extended_header_without_end_is_not_read_into_memory(tmp_path: Path, cache: BlobCache) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "app.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "extended header" in refused("docker-archive:app.tar", cache, tmp_path).message


@pytest.mark.parametrize(
    ("source", "told"),
    (
        ("oci:nowhere", "no such file"),
        ("docker-archive:nowhere.tar", "no such file"),
        ("oci:empty", "lacks oci-layout"),
        ("docker-archive:text", "no tar archive"),
        ("docker-archive:layout.tar", "is an OCI image layout"),
        ("oci-archive:app.tar", "lacks oci-layout"),
    ),
)
def test_what_is_not_there_or_something_else_is_told(
    tmp_path: Path, cache: BlobCache, source: str, told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("just text\n" * 100)
    one_image(tmp_path / "layout").archive(tmp_path / "layout.tar")
    saved(tmp_path, saved_files(build_image()))
    error = refused(source, cache, tmp_path)
    assert told in error.message
    assert error.hint


def damaged_is_refused_or_the_same(file: Path, source: str, content: bytes, digests: list[list[str]]) -> None:
    file.write_bytes(content)
    with BlobCache(file.parent / "fresh") as cache:
        try:
            images = read(source, cache, file.parent)
        except Rejected as error:
            assert error.message  # noqa: PT017 - either outcome is right
        else:
            assert [digests_of(image) for image in images] == digests
            assert all(digest_of(part) in digests_of(i) for i in images for part in contents_of(i))
    shutil.rmtree(file.parent / "fresh", ignore_errors=True)


DAMAGES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("form", ("oci-archive", "docker-archive", "compressed"))
@DAMAGES
@given(data=st.data())
def test_any_damage_to_an_archive_is_refused_or_changes_no_digest(
    tmp_path: Path, form: str, data: st.DataObject
) -> None:
    file = tmp_path / "app.tar"
    if form == "oci-archive":
        if not (tmp_path / "layout").exists():
            two_platforms(tmp_path / "layout").archive(tmp_path / "good.tar")
        content, digests = (
            (tmp_path / "good.tar").read_bytes(),
            [build_image().digests, build_image("arm64").digests],
        )
    else:
        content, digests = tar_of(saved_files(build_image())), [build_image().digests]
    if form == "compressed":
        content = gzipped(content)
    source = f"{form if form != 'compressed' else 'docker-archive'}:app.tar"
    if data.draw(st.booleans()):
        damaged = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
        damaged = content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]
    damaged_is_refused_or_the_same(file, source, damaged, digests)


# The cache.


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


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_skopeo_writes_nothing_that_is_not_read(tmp_path: Path, cache: BlobCache) -> None:
    built = build_image()
    one_image(tmp_path / "layout", built)
    for form in ("oci-archive", "docker-archive"):
        command = (
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            f"oci:{tmp_path}/layout",
            f"{form}:{tmp_path}/{form}.tar",
        )
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        (image,) = read(f"{form}:{form}.tar", cache, tmp_path)
        assert [layer.digest for layer in image.layers] == built.digests[1:]


def test_a_damaged_gzip_layer_names_the_layer(tmp_path: Path, cache: BlobCache) -> None:
    def cut(content: bytes) -> bytes:
        return gzip.compress(content, mtime=0)[:-9]

    one_image(tmp_path / "layout", compress=cut)
    error = refused("oci:layout", cache, tmp_path)
    assert (error.code, "layer 1 of 2" in error.message) == ("image.layer_damaged", True)
