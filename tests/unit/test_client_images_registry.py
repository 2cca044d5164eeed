"""Images from registries: a real one, and one that misbehaves."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from skerry.client.images.assembly import Assembly, PlatformImage
from skerry.client.images.cache import BlobCache
from skerry.client.images.credentials import Credentials, find_credentials
from skerry.client.images.limits import ImageProgress
from skerry.client.images.reader import ImageReader
from skerry.client.images.references import parse_reference
from skerry.client.images.registry import read_registry
from skerry.kit.digests import digest_of
from skerry.kit.errors import Denied, Missing, Rejected, Unavailable, Untrusted
from skerry.testing.waiting import eventually_sync
from tests.unit.hub_double import serve_hub
from tests.unit.image_files import BuiltImage, build_image, gzipped, tar_of, two_platforms
from tests.unit.registry_double import PASSWORD, USER, RegistryDouble, serve_registry

# Of the password `secret`; docker-registry takes bcrypt only.
HTPASSWD = "publisher:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    with serve_registry() as registry:
        yield registry


def large_image() -> BuiltImage:
    """Return an image whose one layer does not shrink."""
    layer = tar_of({"noise": os.urandom(400_000)})
    config = json.loads(build_image().config)
    config["rootfs"]["diff_ids"] = [digest_of(layer)]
    return BuiltImage(json.dumps(config).encode(), (layer,))


def publish(registry: RegistryDouble, built: BuiltImage) -> str:
    """Put an image into the double as team/app:1; return the digest of its layer as stored."""
    layers = [registry.hold(gzipped(layer)) for layer in built.layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": registry.hold(built.config), "size": len(built.config)},
        "layers": [{"digest": digest, "size": len(registry.blobs[digest])} for digest in layers],
    }
    content = json.dumps(manifest).encode()
    registry.manifests["1"] = registry.manifests[digest_of(content)] = content
    return layers[0]


class Reading:
    """Reads team/app:1 with a cache of its own, and remembers what it was told."""

    def __init__(self, folder: Path, registry: RegistryDouble) -> None:
        self.folder = folder
        self.name = f"{registry.host}/team/app:1"
        self.environment: dict[str, str] = {}
        self.seen: list[ImageProgress] = []
        self.pauses_s: list[float] = []

    def read(self) -> list[PlatformImage]:
        with BlobCache(self.folder / "cache") as cache:
            return read_registry(
                self.name,
                Assembly(cache, self.seen.append),
                environment=self.environment,
                sleep=self.pauses_s.append,
            )

    def log_in(self, host: str, password: str = PASSWORD) -> None:
        entry = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
        (self.folder / "auth.json").write_text(json.dumps({"auths": {host: entry}}))
        self.environment["REGISTRY_AUTH_FILE"] = str(self.folder / "auth.json")


@pytest.fixture
def reading(tmp_path: Path, registry: RegistryDouble) -> Reading:
    return Reading(tmp_path, registry)


def digests_of(image: PlatformImage) -> list[str]:
    return [image.config.digest, *(layer.digest for layer in image.layers)]


def test_an_image_of_docker_schema_2_is_read(registry: RegistryDouble, reading: Reading) -> None:
    built = build_image()
    publish(registry, built)
    (image,) = reading.read()
    assert digests_of(image) == built.digests
    kept = image.manifest
    assert kept is not None
    assert kept.path.read_bytes() == registry.manifests["1"], (
        "by its digest the image can be pulled from there"
    )
    assert kept.digest == digest_of(registry.manifests["1"])


def test_a_second_push_downloads_and_unpacks_nothing(registry: RegistryDouble, reading: Reading) -> None:
    publish(registry, build_image())
    first = reading.read()
    registry.asked.clear()
    registry.sent_bytes = 0
    reading.seen.clear()
    assert [digests_of(image) for image in reading.read()] == [digests_of(image) for image in first]
    assert (registry.asked, registry.sent_bytes) == (["/v2/team/app/manifests/1"], 0)
    assert {progress.step for progress in reading.seen} == {"check"}


def test_a_download_that_breaks_goes_on_at_the_byte_where_it_stopped(
    registry: RegistryDouble, reading: Reading
) -> None:
    built = large_image()
    stored = registry.blobs[publish(registry, built)]
    registry.cuts = [100_000, 0, 50_000]
    assert digests_of(reading.read()[0]) == built.digests
    assert not registry.cuts
    assert registry.ranges[-1] == "bytes=150000-"
    assert registry.sent_bytes == len(stored) + len(built.config), "no byte came twice"


def test_a_push_that_was_given_up_goes_on_later(registry: RegistryDouble, reading: Reading) -> None:
    built = large_image()
    publish(registry, built)
    registry.cuts = [100_000, *[0] * 100]
    with pytest.raises(Unavailable):
        reading.read()
    assert reading.pauses_s == sorted(reading.pauses_s)
    registry.cuts, registry.ranges = [], []
    assert digests_of(reading.read()[0]) == built.digests
    assert registry.ranges == ["bytes=100000-"]


def test_a_registry_without_ranges_begins_anew(registry: RegistryDouble, reading: Reading) -> None:
    built = large_image()
    publish(registry, built)
    registry.cuts, registry.honours_ranges = [100_000], False
    assert digests_of(reading.read()[0]) == built.digests


def test_a_half_download_that_is_damaged_is_fetched_anew(registry: RegistryDouble, reading: Reading) -> None:
    built = large_image()
    stored = publish(registry, built)
    with BlobCache(reading.folder / "cache") as cache:
        cache.put(b"so that it is there")
        (reading.folder / "cache" / "partial" / stored.removeprefix("sha256:")).write_bytes(b"x" * 1000)
    assert digests_of(reading.read()[0]) == built.digests


@pytest.mark.parametrize("longer", (b"", b"more"))
def test_a_registry_that_sends_something_else_is_refused(
    registry: RegistryDouble, reading: Reading, longer: bytes
) -> None:
    stored = publish(registry, large_image())
    content = registry.blobs[stored]
    registry.blobs[stored] = content[:-1] + b"x" + longer
    with pytest.raises(Rejected) as caught:
        reading.read()
    assert caught.value.code == "image.digest_mismatch"


def test_a_name_with_a_digest_takes_nothing_else(registry: RegistryDouble, reading: Reading) -> None:
    publish(registry, build_image())
    digest = digest_of(registry.manifests["1"])
    reading.name = f"{registry.host}/team/app:1@{digest}"
    assert reading.read()
    registry.manifests[digest] += b" "
    with pytest.raises(Rejected, match="the registry answers"):
        reading.read()


def test_a_token_is_asked_for_with_the_credentials_of_the_login(
    registry: RegistryDouble, reading: Reading
) -> None:
    publish(registry, build_image())
    registry.wants_token = True
    with pytest.raises(Denied, match="podman login"):
        reading.read()
    reading.log_in(registry.host)
    assert reading.read()
    reading.log_in(registry.host, "another")
    with pytest.raises(Denied, match="log in again") as caught:
        reading.read()
    assert PASSWORD not in str(caught.value)


def test_a_redirect_gets_no_credentials(registry: RegistryDouble, reading: Reading) -> None:
    built = build_image()
    publish(registry, built)
    registry.wants_token = True
    reading.log_in(registry.host)
    with serve_registry() as storage:
        storage.blobs = registry.blobs
        registry.redirect_to = f"http://{storage.host}"
        assert digests_of(reading.read()[0]) == built.digests
        assert set(storage.authorizations) == {""}
        registry.redirect_to = "ftp://elsewhere"
        registry.blobs = {}
        shutil.rmtree(reading.folder / "cache")
        with pytest.raises(Untrusted):
            reading.read()


def test_a_registry_that_is_busy_is_asked_again_and_then_given_up(
    registry: RegistryDouble, reading: Reading
) -> None:
    publish(registry, build_image())
    registry.statuses = [503, 429]
    assert reading.read()
    assert len(reading.pauses_s) == 2
    registry.statuses = [503] * 100
    with pytest.raises(Unavailable, match="HTTP 503"):
        reading.read()


def test_what_is_not_there_is_told(registry: RegistryDouble, reading: Reading) -> None:
    with pytest.raises(Missing, match="team/app:1 is not there"):
        reading.read()


def test_a_registry_that_is_not_there_is_told_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with BlobCache(tmp_path / "cache") as cache, pytest.raises(Unavailable) as caught:
        read_registry(
            f"127.0.0.1:{port}/a/b:1", Assembly(cache, lambda _: None), environment={}, sleep=lambda _: None
        )
    assert "--insecure-registry" in caught.value.hint


def test_a_registry_has_to_prove_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub(tmp_path) as server, BlobCache(tmp_path / "cache") as cache:

        def read() -> list[PlatformImage]:
            name = f"{server.url.removeprefix('https://')}/a/b:1"
            return read_registry(name, Assembly(cache, lambda _: None), environment={}, sleep=lambda _: None)

        with pytest.raises(Untrusted, match="does not prove who it is"):
            read()
        (tmp_path / "ca.pem").write_text(server.ca_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(Missing):
            read()


@pytest.mark.parametrize(
    ("text", "whole"),
    (
        ("debian", "docker://docker.io/library/debian:latest"),
        ("team/app:1", "docker://docker.io/team/app:1"),
        ("docker.io/debian:12", "docker://docker.io/library/debian:12"),
        ("localhost/app", "docker://localhost/app:latest"),
        ("[::1]:5000/a/b:1", "docker://[::1]:5000/a/b:1"),
        (f"r.example:5000/a/b@sha256:{'0' * 64}", f"docker://r.example:5000/a/b:latest@sha256:{'0' * 64}"),
    ),
)
def test_what_a_name_leaves_out_is_filled_in(text: str, whole: str) -> None:
    assert parse_reference(text).text == whole


@pytest.mark.parametrize(
    "text", ("", "UPPER/case", "r.example/", "r.example/a:", "r.example/a@sha256:0", "a b/c:1")
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match="not the name of an image"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("host", "local"),
    (
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("[::1]:5000", True),
        ("10.0.0.1", False),
        ("r.io", False),
    ),
)
def test_only_this_machine_may_be_spoken_to_without_being_named(host: str, local: bool) -> None:
    assert parse_reference(f"{host}/a/b").is_loopback is local


def test_the_narrowest_login_counts_and_helpers_are_named(tmp_path: Path) -> None:
    def encoded(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:secret".encode()).decode()}

    (tmp_path / "containers").mkdir()
    auths = {"r.example": encoded("wide"), "r.example/team": encoded("narrow")}
    (tmp_path / "containers" / "auth.json").write_text(json.dumps({"auths": auths}))
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {"https://index.docker.io/v1/": encoded("hub")}, "credsStore": "desktop"})
    )
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}

    def found(name: str) -> Credentials:
        return find_credentials(parse_reference(name), environment)

    assert found("r.example/team/app").user == "narrow"
    assert found("r.example/other/app").user == "wide"
    assert found("debian").user == "hub"
    assert found("else.example/a") == Credentials(helper="desktop")
    assert "secret" not in repr(found("debian"))


def test_a_file_of_logins_that_cannot_be_read_is_told_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text('{"auths": {"r.example": {"auth": "c2VjcmV0"}},,}')
    with pytest.raises(Rejected) as caught:
        find_credentials(parse_reference("r.example/a"), {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})
    assert "c2VjcmV0" not in str(caught.value)


# A real one.


@pytest.fixture
def real_registry(tmp_path: Path) -> Iterator[str]:
    """Run Debian's docker-registry, which asks for a name and a password."""
    program = shutil.which("docker-registry")
    if program is None or shutil.which("skopeo") is None:
        pytest.skip("needs docker-registry and skopeo")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "registry.yml").write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
                "http": {"addr": address},
                "auth": {"htpasswd": {"realm": "here", "path": str(tmp_path / "htpasswd")}},
            }
        )
    )
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen((program, "serve", str(tmp_path / "registry.yml")), stdout=log, stderr=log)

    def answers() -> bool:
        try:
            return httpx2.get(f"http://{address}/v2/", trust_env=False, timeout=5).status_code == 401
        except httpx2.TransportError:
            return False

    try:
        eventually_sync(answers, what="the answer of the registry")
        yield address
    finally:
        process.kill()
        process.wait(30)


def test_an_image_for_two_platforms_comes_from_a_real_registry(tmp_path: Path, real_registry: str) -> None:
    two_platforms(tmp_path / "layout")
    command = ("skopeo", "--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false")
    where = (f"oci:{tmp_path}/layout", f"docker://{real_registry}/team/app:1")
    subprocess.run((*command, "--dest-creds", "publisher:secret", *where), check=True, timeout=60)
    entry = {"auth": base64.b64encode(b"publisher:secret").decode()}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {real_registry: entry}}))
    with BlobCache(tmp_path / "cache") as cache:

        def read(environment: dict[str, str]) -> list[PlatformImage]:
            reader = ImageReader(cache, lambda _: None, environment=environment)
            return reader.read(f"docker://{real_registry}/team/app:1", tmp_path)

        images = read({"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})
        with pytest.raises(Denied):
            read({})
    assert [digests_of(image) for image in images] == [build_image().digests, build_image("arm64").digests]
