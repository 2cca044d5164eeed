"""Images from files: what is read, what it is pinned to, and for which platforms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.client.images.cache import BlobCache
from skerry.client.images.platforms import parse_platform, requirements_of
from skerry.client.images.reader import ImageReader
from skerry.kit.digests import digest_of
from tests.unit.image_files import (
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
from tests.unit.image_reading import contents_of, digests_of, read, refused, saved


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    with BlobCache(tmp_path / "cache") as cache:
        yield cache


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
