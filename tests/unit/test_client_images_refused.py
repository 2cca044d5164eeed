"""Images from files that are refused: damaged, exchanged, endless, or leading out of their archive."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.client.images import limits
from skerry.client.images.cache import BlobCache
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.errors import Rejected
from tests.unit.image_files import (
    OCI_MANIFEST,
    BuiltImage,
    Layout,
    build_image,
    gzipped,
    one_image,
    saved_files,
    tar_of,
    two_platforms,
)
from tests.unit.image_reading import contents_of, digests_of, read, refused, saved


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    with BlobCache(tmp_path / "cache") as cache:
        yield cache


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


def test_a_damaged_gzip_layer_names_the_layer(tmp_path: Path, cache: BlobCache) -> None:
    def cut(content: bytes) -> bytes:
        return gzip.compress(content, mtime=0)[:-9]

    one_image(tmp_path / "layout", compress=cut)
    error = refused("oci:layout", cache, tmp_path)
    assert (error.code, "layer 1 of 2" in error.message) == ("image.layer_damaged", True)
