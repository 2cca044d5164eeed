"""Images from the engine of this machine, and from the archives that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.client.images.assembly import PlatformImage
from skerry.client.images.cache import BlobCache
from skerry.client.images.engine import socket_paths
from skerry.client.images.limits import ImageProgress
from skerry.client.images.reader import ImageReader
from skerry.kit.errors import Missing, SkerryError, Unavailable
from skerry.testing.podman import PodmanService, can_run_podman
from tests.unit.image_files import build_image, one_image


def digests_of(image: PlatformImage) -> list[str]:
    return [image.config.digest, *(layer.digest for layer in image.layers)]


@pytest.mark.podman
@pytest.mark.skipif(not can_run_podman(), reason="needs podman and root")
def test_an_image_comes_from_a_real_engine_and_is_exported_once(tmp_path: Path) -> None:
    built = build_image()
    one_image(tmp_path / "layout", built).archive(tmp_path / "app.tar")
    seen: list[ImageProgress] = []

    def read(name: str) -> list[PlatformImage]:
        with BlobCache(tmp_path / "cache") as cache:
            reader = ImageReader(cache, seen.append, environment={"DOCKER_HOST": f"unix://{podman.socket}"})
            return reader.read(f"engine:{name}", tmp_path)

    with PodmanService(tmp_path / "podman") as podman:
        podman.podman("load", "--input", str(tmp_path / "app.tar"))
        podman.podman("tag", podman.podman("images", "--quiet", "--no-trunc"), "localhost/team/app:1")
        (image,) = read("localhost/team/app:1")
        assert [layer.digest for layer in image.layers] == built.digests[1:]
        assert "read" in {progress.step for progress in seen}
        seen.clear()
        (again,) = read("localhost/team/app:1")
        assert digests_of(again) == digests_of(image)
        assert {progress.step for progress in seen} == {"check"}
        with pytest.raises(Missing) as caught:
            read("localhost/team/app:2")
        assert str(podman.socket) in caught.value.hint

        for form in ("docker-archive", "oci-archive"):
            file = tmp_path / f"{form}.tar"
            podman.podman("save", "--format", form, "--output", str(file), "localhost/team/app:1")
            with BlobCache(tmp_path / "cache") as cache:
                reader = ImageReader(cache, seen.append, environment={})
                (saved,) = reader.read(f"{form}:{file.name}", tmp_path)
                assert [layer.digest for layer in saved.layers] == built.digests[1:]
    with pytest.raises(Unavailable, match="no engine answers"):
        read("localhost/team/app:1")


def test_only_engines_of_this_machine_are_asked() -> None:
    assert socket_paths({"DOCKER_HOST": "unix:///a/b.sock"}) == [Path("/a/b.sock")]
    assert socket_paths({"XDG_RUNTIME_DIR": "/run/user/1"})[0] == Path("/run/user/1/podman/podman.sock")
    with pytest.raises(SkerryError, match="only unix"):
        socket_paths({"DOCKER_HOST": "tcp://10.0.0.1:2375"})
