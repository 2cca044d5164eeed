"""What every Images promises, asked of a real engine."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.adapters.docker_images import DockerImages
from skerry.adapters.docker_runtime import DockerRuntime
from skerry.kit.digests import digest_of, hex_of
from skerry.kit.errors import Rejected, Unavailable, Untrusted
from skerry.ports.images import ImageParts, Images
from skerry.ports.runtime import ContainerSpec, InstanceSpec
from skerry.testing.images import TestImage, layer, make_image
from skerry.testing.podman import PodmanService
from skerry.testing.waiting import eventually
from tests.contract.tiny_disk import tiny_disk

pytestmark = pytest.mark.podman

_owners = itertools.count()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    with PodmanService(tmp_path_factory.mktemp("podman")) as service:
        yield service


@pytest.fixture
def owner() -> str:
    return f"images-{next(_owners)}"


@pytest.fixture
def images(podman: PodmanService, owner: str) -> Iterator[Images]:
    yield DockerImages(podman.socket, owner=owner)
    podman.podman("rm", "--all", "--force", "--time", "0")
    podman.podman("rmi", "--all", "--force")


@pytest.fixture
def image(tmp_path: Path) -> TestImage:
    return make_image(
        tmp_path / "image", files={"hello": b"#!/bin/sh\necho hello\n"}, config={"Cmd": ["/hello"]}
    )


def all_images(podman: PodmanService) -> set[str]:
    return set(podman.podman("images", "--all", "--no-trunc", "--quiet").split())


async def prints(podman: PodmanService, owner: str, image: TestImage) -> bytes:
    """Run an image's own command to its end and return what it wrote."""
    runtime = DockerRuntime(podman.socket, owner=owner)
    container = ContainerSpec(image=image.identity)
    await runtime.start(InstanceSpec(id="one", command=(), env={}, directory=Path("/"), container=container))

    async def has_ended() -> bool:
        return (await runtime.instances())["one"].state == "exited"

    await eventually(has_ended, what="the end of the container")
    output = await runtime.logs("one", tail_bytes=1000)
    await runtime.remove("one")
    return output


async def test_what_is_loaded_has_its_identity_and_runs(
    podman: PodmanService, owner: str, images: Images, image: TestImage
) -> None:
    assert await images.loaded() == set()
    await images.load(image.parts, image.blob)
    assert await images.loaded() == {image.identity}
    assert all_images(podman) == {image.identity}
    assert await prints(podman, owner, image) == b"hello\n"


async def test_the_same_arguments_make_the_same_image(tmp_path: Path, image: TestImage) -> None:
    files = {"hello": b"#!/bin/sh\necho hello\n"}
    assert make_image(tmp_path / "again", files=files, config={"Cmd": ["/hello"]}).parts == image.parts


async def test_loading_again_is_harmless(images: Images, image: TestImage) -> None:
    await images.load(image.parts, image.blob)
    await images.load(image.parts, image.blob)
    assert await images.loaded() == {image.identity}


async def test_a_new_adapter_knows_what_an_earlier_one_loaded(
    podman: PodmanService, owner: str, images: Images, image: TestImage
) -> None:
    await images.load(image.parts, image.blob)
    assert await DockerImages(podman.socket, owner=owner).loaded() == {image.identity}


@pytest.mark.parametrize("which", (0, 1))
async def test_a_damaged_layer_is_untrusted_and_nothing_of_it_is_there(
    podman: PodmanService, images: Images, image: TestImage, which: int
) -> None:
    path = image.blob(image.parts.layers[which][0])
    content = bytearray(path.read_bytes())
    content[-1025] ^= 1
    path.write_bytes(content)
    with pytest.raises(Untrusted) as caught:
        await images.load(image.parts, image.blob)
    assert caught.value.code == "blob.mismatch"
    assert all_images(podman) == set()


async def test_a_layer_of_another_size_is_untrusted(
    podman: PodmanService, images: Images, image: TestImage
) -> None:
    path = image.blob(image.parts.layers[1][0])
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Untrusted):
        await images.load(image.parts, image.blob)
    assert all_images(podman) == set()


async def test_layers_that_are_not_those_of_the_configuration_are_refused(
    podman: PodmanService, images: Images, image: TestImage, tmp_path: Path
) -> None:
    content = layer({"evil": (b"#!/bin/sh\n", 0o755)})
    other = (digest_of(content), len(content))
    image.blob(other[0]).write_bytes(content)
    parts = ImageParts(config=image.parts.config, layers=(image.parts.layers[0], other))
    with pytest.raises((Untrusted, Rejected)) as caught:
        await images.load(parts, image.blob)
    assert caught.value.code in ("image.mismatch", "image.malformed")
    assert await images.loaded() == set()
    assert all_images(podman) == set()


async def test_what_is_no_image_is_rejected(podman: PodmanService, images: Images, tmp_path: Path) -> None:
    content = b"this is no configuration"
    digest = digest_of(content)
    (tmp_path / hex_of(digest)).write_bytes(content)
    with pytest.raises(Rejected) as caught:
        await images.load(
            ImageParts(config=(digest, len(content)), layers=()), lambda wanted: tmp_path / hex_of(wanted)
        )
    assert caught.value.code == "image.malformed"
    assert all_images(podman) == set()


async def test_a_load_whose_connection_breaks_leaves_nothing_and_is_done_again(
    podman: PodmanService, owner: str, images: Images, image: TestImage, tmp_path: Path
) -> None:
    last = image.parts.layers[-1][0]

    def blob(digest: str) -> Path:
        return tmp_path / "not-there" if digest == last else image.blob(digest)

    with pytest.raises(Unavailable) as caught:
        await images.load(image.parts, blob)
    assert caught.value.code == "blob.unreadable"
    assert all_images(podman) == set()
    await images.load(image.parts, image.blob)
    assert await prints(podman, owner, image) == b"hello\n"


async def test_a_load_during_which_the_engine_is_killed_is_done_again(
    podman: PodmanService, owner: str, images: Images, image: TestImage
) -> None:
    last = image.parts.layers[-1][0]

    def blob(digest: str) -> Path:
        if digest == last:
            podman.kill()
        return image.blob(digest)

    with pytest.raises(Unavailable) as caught:
        await images.load(image.parts, blob)
    assert caught.value.code == "runtime.engine_away"
    podman.start()
    assert await images.loaded() == set()
    await images.load(image.parts, image.blob)
    assert await images.loaded() == {image.identity}
    assert await prints(podman, owner, image) == b"hello\n"


# The first is seen not to fit beforehand; the second fits, but not together with the engine's own copy.
@pytest.mark.parametrize("megabytes", (40, 13))
async def test_an_engine_without_room_is_unavailable_and_holds_nothing(
    tmp_path: Path, megabytes: int
) -> None:
    content = {"large": bytes(range(256)) * (megabytes << 12)}
    image = make_image(tmp_path / "image", files=content)
    with tiny_disk(tmp_path / "disk", size_bytes=24 << 20) as disk, PodmanService(disk / "podman") as podman:
        images = DockerImages(podman.socket, owner="tiny")
        with pytest.raises(Unavailable) as caught:
            await images.load(image.parts, image.blob)
        assert caught.value.code == "disk.full"
        assert await images.loaded() == set()
        small = make_image(tmp_path / "small")

        async def fits() -> bool:
            # Podman is not done at once with what it could not load, and says so in several ways.
            with contextlib.suppress(Unavailable):
                await images.load(small.parts, small.blob)
                return True
            return False

        await eventually(fits)
        assert await images.loaded() == {small.identity}


async def test_an_engine_that_is_away_is_unavailable(tmp_path: Path, image: TestImage) -> None:
    images = DockerImages(tmp_path / "nothing.sock", owner="nobody")
    with pytest.raises(Unavailable):
        await images.loaded()
    with pytest.raises(Unavailable):
        await images.load(image.parts, image.blob)


async def test_prune_removes_what_is_not_to_be_kept(
    podman: PodmanService, images: Images, image: TestImage, tmp_path: Path
) -> None:
    other = make_image(tmp_path / "other", files={"other": b"x"})
    await images.load(image.parts, image.blob)
    await images.load(other.parts, other.blob)
    assert await images.prune({image.identity}) == {other.identity}
    assert await images.loaded() == {image.identity} == all_images(podman)


async def test_prune_never_removes_one_that_a_container_uses(
    podman: PodmanService, owner: str, images: Images, image: TestImage
) -> None:
    await images.load(image.parts, image.blob)
    runtime = DockerRuntime(podman.socket, owner=owner)
    container = ContainerSpec(image=image.identity)
    await runtime.start(InstanceSpec(id="one", command=(), env={}, directory=Path("/"), container=container))
    assert await images.prune(set()) == set()
    assert await images.loaded() == {image.identity}
    await runtime.remove("one")
    assert await images.prune(set()) == {image.identity}
    assert all_images(podman) == set()


async def test_images_of_others_are_neither_seen_nor_removed(
    podman: PodmanService, images: Images, image: TestImage, tmp_path: Path
) -> None:
    neighbour = DockerImages(podman.socket, owner="neighbour")
    await neighbour.load(image.parts, image.blob)
    assert await images.loaded() == set()
    await images.load(image.parts, image.blob)
    assert await images.prune(set()) == {image.identity}
    assert await images.loaded() == set()
    assert await neighbour.loaded() == {image.identity} == all_images(podman)


async def test_prune_leaves_images_that_a_person_made(
    podman: PodmanService, images: Images, image: TestImage
) -> None:
    await images.load(image.parts, image.blob)
    podman.podman("tag", image.identity, "localhost/mine:1")
    await images.prune(set())
    assert await images.loaded() == set()
    assert all_images(podman) == {image.identity}
