"""Pushing a release over real HTTPS: what travels, what does not, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.client.client import Client
from skerry.client.images.cache import BlobCache
from skerry.client.images.reader import ImageReader
from skerry.client.push import CHUNK_BYTES, Publish, PushProgress, PushResult, plan_push, push_release
from skerry.client.sources import read_release
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected, SkerryError, Unavailable
from skerry.spec.problems import DocumentRejected
from skerry.spec.release import Release
from tests.unit.hub_double import TOKEN, HubDouble, serve_hub
from tests.unit.image_files import build_image, one_image, plain, two_platforms
from tests.unit.signing_hub import registered

RELEASE = """\
apiVersion: skerry/v1
kind: Model
metadata:
  name: digits
spec:
  version: 1.0.0
  variants:
    - name: fp32
      format: onnx
      files:
        - path: model.onnx
          source: model.onnx
---
kind: Application
metadata:
  name: reader
spec:
  version: 1.0.0
  components:
    - name: reader
      command: ["${bundle}/app"]
      bundle:
        files:
          - {path: app, source: bin/app}
      models:
        - {name: digits, version: 1.0.0}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubDouble]:
    with serve_hub(tmp_path) as hub:
        yield hub


class Pushing(Client):
    """A client on the machine of a publisher."""

    def __init__(self, hub: HubDouble, folder: Path) -> None:
        super().__init__(hub.url, ca_pem=hub.ca_pem, token=TOKEN)
        self.publish: Publish = registered(self, hub.signing, folder).publish_release


@pytest.fixture
def client(hub: HubDouble, tmp_path: Path) -> Iterator[Pushing]:
    with Pushing(hub, tmp_path / "publisher") as client:
        yield client


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "app").write_bytes(b"#!/bin/sh\n")
    (folder / "model.onnx").write_bytes(os.urandom(2 * CHUNK_BYTES + 12345))
    (folder / "release.yaml").write_text(RELEASE)
    return folder / "release.yaml"


def quietly(path: Path, done_bytes: int, total_bytes: int) -> None:
    """Hash without saying so."""


class Patience:
    """Pauses that take no time."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses_s.append(seconds)


def push(client: Pushing, path: Path, seen: list[PushProgress] | None = None) -> PushResult:
    prepared = read_release(path, quietly)
    return push_release(
        client, prepared, client.publish, (seen if seen is not None else []).append, sleep=Patience()
    )


def test_a_release_arrives_whole_and_pinned(hub: HubDouble, client: Pushing, release: Path) -> None:
    result = push(client, release)
    model = (release.parent / "model.onnx").read_bytes()
    assert result.created
    assert hub.blobs[digest_of(model)] == model
    published = msgspec.json.decode(hub.releases["reader@1.0.0"], type=Release)
    assert [file.digest for file in published.files()] == [digest_of(b"#!/bin/sh\n"), digest_of(model)]
    assert all(not file.source for file in published.files())
    assert result.uploaded_bytes == hub.received_bytes == len(model) + 10


def test_pushing_again_moves_no_byte_and_changes_nothing(
    hub: HubDouble, client: Pushing, release: Path
) -> None:
    first = push(client, release)
    again = push(client, release)
    assert (again.created, again.uploaded_bytes, again.uploaded_blobs) == (False, 0, 0)
    assert again.skipped_bytes == first.uploaded_bytes == hub.received_bytes


def test_a_new_model_moves_only_its_own_bytes(hub: HubDouble, client: Pushing, release: Path) -> None:
    push(client, release)
    before = hub.received_bytes
    (release.parent / "model.onnx").write_bytes(b"better")
    release.write_text(RELEASE.replace("1.0.0", "1.1.0"))
    result = push(client, release)
    assert hub.received_bytes - before == result.uploaded_bytes == len(b"better")


def test_a_cut_upload_goes_on_at_the_byte_where_it_stopped(
    hub: HubDouble, client: Pushing, release: Path
) -> None:
    size = (release.parent / "model.onnx").stat().st_size
    hub.cuts = [3_000_000, 0, 1_234_567]
    seen: list[PushProgress] = []
    result = push(client, release, seen)
    assert not hub.cuts
    assert hub.received_bytes == size + 10, "no byte was taken twice"
    assert result.uploaded_bytes == size + 10
    assert {3_000_000, 4_234_567} <= set(hub.offsets)
    assert any(progress.step == "wait" for progress in seen)


def test_a_push_that_was_given_up_goes_on_later(hub: HubDouble, client: Pushing, release: Path) -> None:
    hub.cuts = [5, 5, 5, 5] + [0] * 100
    with pytest.raises(Unavailable):
        push(client, release)
    hub.cuts = []
    received = hub.received_bytes
    size = (release.parent / "model.onnx").stat().st_size + 10
    assert 0 < received < size
    assert push(client, release).uploaded_bytes == size - received
    assert hub.received_bytes == size


def test_pauses_grow_while_nothing_moves_and_then_it_gives_up(
    hub: HubDouble, client: Pushing, release: Path
) -> None:
    hub.cuts = [0] * 100
    patience = Patience()
    with pytest.raises(Unavailable):
        push_release(client, read_release(release, quietly), client.publish, lambda _: None, sleep=patience)
    assert patience.pauses_s == sorted(patience.pauses_s)
    assert sum(patience.pauses_s) > 30


def test_the_hub_says_where_an_upload_stands_when_another_push_was_faster(
    hub: HubDouble, client: Pushing, release: Path
) -> None:
    prepared = read_release(release, quietly)
    model = (release.parent / "model.onnx").read_bytes()
    asked: list[str] = []

    class Overtaken(Client):
        """While the first chunk is on its way, somebody else uploads the beginning of the same file."""

        def upload(self, blob: object, **how: object) -> object:  # type: ignore[override]
            if not asked and getattr(blob, "size_bytes", 0) == len(model):
                asked.append("overtaken")
                hub.uploads[digest_of(model)] = bytearray(model[:100_000])
            return super().upload(blob, **how)  # type: ignore[arg-type]

    with Overtaken(hub.url, ca_pem=hub.ca_pem, token=TOKEN) as overtaken:
        push_release(overtaken, prepared, client.publish, lambda _: None, sleep=Patience())
    assert asked
    assert 100_000 in hub.offsets
    assert hub.blobs[digest_of(model)] == model


def test_an_empty_file_is_a_blob_too(hub: HubDouble, client: Pushing, release: Path) -> None:
    (release.parent / "bin" / "app").write_bytes(b"")
    push(client, release)
    assert hub.blobs[digest_of(b"")] == b""


def test_a_dry_run_counts_what_would_travel_and_sends_nothing(
    hub: HubDouble, client: Pushing, release: Path
) -> None:
    prepared = read_release(release, quietly)
    plan = plan_push(client, prepared)
    assert plan.missing_bytes == plan.total_bytes == (release.parent / "model.onnx").stat().st_size + 10
    assert not hub.received_bytes
    assert not hub.releases


def test_a_file_that_changes_after_it_was_hashed_is_refused(
    hub: HubDouble, client: Pushing, release: Path
) -> None:
    prepared = read_release(release, quietly)
    (release.parent / "model.onnx").write_bytes(b"another one")
    with pytest.raises(Rejected, match="changed while it was read"):
        push_release(client, prepared, client.publish, lambda _: None, sleep=Patience())
    assert not hub.releases


def test_a_file_that_changes_while_it_is_hashed_is_refused(release: Path) -> None:
    def disturb(path: Path, done_bytes: int, total_bytes: int) -> None:
        if path.name == "model.onnx" and done_bytes < total_bytes:
            with path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(DocumentRejected, match="changed while it was read"):
        read_release(release, disturb)


def test_links_are_followed_even_out_of_the_folder(tmp_path: Path, release: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"elsewhere")
    (release.parent / "model.onnx").unlink()
    (release.parent / "model.onnx").symlink_to(tmp_path / "elsewhere")
    assert digest_of(b"elsewhere") in read_release(release, quietly).sources


def test_every_file_that_cannot_be_pushed_is_told_with_the_line_that_names_it(release: Path) -> None:
    (release.parent / "model.onnx").unlink()
    os.mkfifo(release.parent / "model.onnx")
    (release.parent / "bin" / "app").unlink()
    with pytest.raises(DocumentRejected) as caught:
        read_release(release, quietly)
    told = {problem.path: problem for problem in caught.value.problems}
    fifo = told["spec.variants[0].files[0].source"]
    assert (fifo.line, fifo.file) == (12, str(release))
    assert "not an ordinary file" in fifo.message
    lost = told["spec.components[0].bundle.files[0].source"]
    assert (lost.line, lost.message) == (24, "no such file: bin/app")
    assert "relative to this document" in lost.hint


@pytest.mark.parametrize(
    ("text", "message"),
    (
        (RELEASE.replace("digits, version: 1.0.0", "digits, version: 2.0.0"), "is not part of the release"),
        (RELEASE.split("---", maxsplit=1)[0], "no Application"),
        (RELEASE + "---\nkind: Site\nmetadata: {name: a}\n", "a Site is no part of a release"),
        (RELEASE + "---" + RELEASE.split("---")[1], "a second Application"),
    ),
)
def test_a_file_that_is_no_release_is_refused(release: Path, text: str, message: str) -> None:
    release.write_text(text)
    with pytest.raises(DocumentRejected, match=message):
        read_release(release, quietly)


def test_a_hub_that_is_not_the_one_logged_in_to_gets_nothing(tmp_path: Path, hub: HubDouble) -> None:
    (tmp_path / "other").mkdir()
    with serve_hub(tmp_path / "other") as other, Client(other.url, ca_pem=hub.ca_pem, token=TOKEN) as client:
        with pytest.raises(SkerryError) as caught:
            client.whoami()
        assert caught.value.code == "hub.certificate"
        assert not other.requests


IMAGES = """\
kind: Model
metadata: {name: digits}
spec:
  version: 1.0.0
  self_test:
    cases:
      - {name: one, input: {path: one.json, source: one.json}, expected: {path: out.json, source: out.json}}
  variants:
    - {name: fp32, format: onnx, files: [{path: model.onnx, source: model.onnx}]}
---
kind: Application
metadata: {name: reader}
spec:
  version: 1.0.0
  components:
    - name: reader
      image: {source: "oci:layout"}
      models: [{name: digits, version: 1.0.0}]
    - name: tied
      image:
        variants:
          - {name: gpu, source: "oci:layout", platform: linux/amd64, requires: {gpu: {vendor: nvidia}}}
          - {name: any, source: "oci:layout", requires: {memory: 1GiB}}
          - {name: emulated, source: "oci-archive:one.tar", requires: {arch: [aarch64]}, models: {digits: [fp32]}}
      models: [{name: digits, version: 1.0.0}]
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    two_platforms(folder / "layout")
    one_image(tmp_path / "one", build_image(contents=("one",)), plain).archive(folder / "one.tar")
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "one.json").write_bytes(b"[1]")
    (folder / "out.json").write_bytes(b"[2]")
    (folder / "release.yaml").write_text(IMAGES)
    return folder / "release.yaml"


def push_images(client: Pushing, path: Path, cache: Path) -> PushResult:
    with BlobCache(cache) as blobs:
        reader = ImageReader(blobs, lambda _: None, environment={})
        prepared = read_release(path, quietly, images=reader)
        return push_release(client, prepared, client.publish, lambda _: None, sleep=Patience())


def test_images_arrive_as_uncompressed_layers_with_a_variant_for_each_platform(
    tmp_path: Path, hub: HubDouble, client: Pushing, images: Path
) -> None:
    push_images(client, images, tmp_path / "cache")
    published = msgspec.json.decode(hub.releases["reader@1.0.0"], type=Release)
    reader, tied = (component.image for component in published.application.spec.components)
    assert reader and tied and not reader.source
    assert [(v.name, v.platform, v.requires.arch) for v in reader.variants] == [
        ("linux-amd64", "linux/amd64", ("x86_64",)),
        ("linux-arm64-v8", "linux/arm64/v8", ("aarch64",)),
    ]
    assert [(v.name, v.requires.arch) for v in tied.variants] == [
        ("gpu", ("x86_64",)),
        ("any-linux-amd64", ("x86_64",)),
        ("any-linux-arm64-v8", ("aarch64",)),
        ("emulated", ("aarch64",)),
    ]
    assert tied.variants[0].requires.gpu and tied.variants[2].requires.memory == "1GiB"
    assert tied.variants[3].models == {"digits": ("fp32",)}
    config, *layers = (reader.variants[0].config, *reader.variants[0].layers)
    assert config and [layer.path for layer in layers] == ["layers/00.tar", "layers/01.tar"]
    assert [hub.blobs[str(part.digest)] for part in (config, *layers)] == [
        build_image().config,
        *build_image().layers,
    ]
    for part in (config, *layers):
        assert part.size_bytes == len(hub.blobs[str(part.digest)])


def test_the_files_of_golden_cases_are_pinned(
    tmp_path: Path, hub: HubDouble, client: Pushing, images: Path
) -> None:
    push_images(client, images, tmp_path / "cache")
    published = msgspec.json.decode(hub.releases["reader@1.0.0"], type=Release)
    assert published.models[0].spec.self_test
    (case,) = published.models[0].spec.self_test.cases
    assert (case.input.digest, case.expected.digest) == (digest_of(b"[1]"), digest_of(b"[2]"))
    assert {hub.blobs[digest_of(b"[1]")], hub.blobs[digest_of(b"[2]")]} == {b"[1]", b"[2]"}
    (images.parent / "out.json").unlink()
    with pytest.raises(DocumentRejected, match=r"cases\[0\].expected.source: no such file"):
        push_images(client, images, tmp_path / "cache")


def test_pushing_images_again_changes_nothing_even_from_another_cache(
    tmp_path: Path, hub: HubDouble, client: Pushing, images: Path
) -> None:
    push_images(client, images, tmp_path / "cache")
    before = hub.received_bytes
    for cache in ("cache", "other"):
        again = push_images(client, images, tmp_path / cache)
        assert (again.created, again.uploaded_blobs, hub.received_bytes) == (False, 0, before)


def test_a_layer_in_an_archive_goes_on_at_the_byte_where_it_stopped(
    tmp_path: Path, hub: HubDouble, client: Pushing, images: Path
) -> None:
    hub.cuts = [500, 0, 300]
    push_images(client, images, tmp_path / "cache")
    assert not hub.cuts
    assert hub.blobs[digest_of(build_image(contents=("one",)).layers[0])]


def test_every_image_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, images: Path) -> None:
    (images.parent / "one.tar").write_bytes((images.parent / "one.tar").read_bytes()[:3000])
    images.write_text(IMAGES.replace('image: {source: "oci:layout"}', 'image: {source: "oci:nowhere"}'))
    with BlobCache(tmp_path / "cache") as cache, pytest.raises(DocumentRejected) as caught:
        read_release(images, quietly, images=ImageReader(cache, lambda _: None, environment={}))
    told = {problem.path: problem for problem in caught.value.problems}
    assert told["spec.components[0].image.source"].line == 17
    assert "no such file: nowhere" in told["spec.components[0].image.source"].message
    damaged = told["spec.components[1].image.variants[2].source"]
    assert (damaged.line, "one.tar" in damaged.message) == (24, True)


def test_a_dry_run_shows_the_images_of_each_platform_and_sends_nothing(
    tmp_path: Path, hub: HubDouble, images: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    environment = {
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "SKERRY_CONFIG": str(tmp_path / "config.json"),
        "SKERRY_HUB": hub.url,
        "SKERRY_ROOT": hub.root,
        "SKERRY_TOKEN_FILE": str(tmp_path / "token"),
    }
    done = subprocess.run(
        (sys.executable, "-m", "skerry", "release", "push", str(images), "--dry-run"),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size = sum(len(layer) for layer in build_image("arm64").layers)
    line = f"image of reader: linux-arm64-v8 for linux/arm64/v8, 2 layers, {size / 1024:.1f} KiB"
    assert line in done.stdout
    assert "unpacking" in done.stderr
    assert not hub.releases and not hub.received_bytes
    assert (tmp_path / "xdg" / "skerry" / "blobs" / "sha256").is_dir()
