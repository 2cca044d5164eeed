"""How a component becomes what a runtime starts."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.net_prober import NetProber
from skerry.agent.launching import Launcher, Site
from skerry.agent.live_configuration import LiveConfiguration
from skerry.agent.live_models import LiveModels
from skerry.agent.releases import Releases
from skerry.agent.services.host_service import Given
from skerry.agent.services.secrets import SECRETS
from skerry.agent.volumes import Volumes
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.errors import Rejected
from skerry.ports.runtime import Mount
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import (
    Application,
    ApplicationSpec,
    Component,
    ComponentTest,
    ConfigFile,
    ConfigUse,
    Container,
    Device,
    ModelMount,
    OnChange,
    Port,
    Resources,
    SecretUse,
    Tmpfs,
    Volume,
)
from skerry.spec.configuration import ApplicationConfig, Configured
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.image import Image, ImageVariant
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.release import Release
from skerry.testing.clock import SimulatedClock
from skerry.testing.fake_runtime import FakeRuntime
from skerry.testing.memory import MemoryAgentStore

FACTS: HostFacts = {
    "arch": Fact(value="x86_64", source="test"),
    "engine": Fact(value="podman", source="test"),
    "memory_bytes": Fact(value=8 << 30, source="test"),
    "cpu_count": Fact(value=4, source="test"),
    "devices.camera": Fact(value=("/dev/video0", "/dev/video2"), source="test"),
}


class World:
    """A host on which releases are laid out without a network."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.blobs = DirectoryBlobs(place / "blobs")
        self.store = MemoryAgentStore()
        self.there = {"/dev/video0", "/dev/video2"}
        self.releases = Releases(place / "releases", self.blobs, device_is_there=self.there.__contains__)
        self.releases.set_facts(FACTS, SitePolicy())
        clock = SimulatedClock()
        self.live = LiveModels(place / "live", self.releases, self.store, FakeRuntime(clock), NetProber())
        self.volumes = Volumes(place / "volumes", clock)
        self.launcher = self.again()

    def again(self) -> Launcher:
        """Return a launcher as a new agent would have it."""
        site = Site("edge", "harbour", lambda: {"greeting": "hello"})
        return Launcher(site, self.store, self.releases, self.volumes, self.live)

    def blob(self, content: bytes, path: str) -> FileSpec:
        """Store a blob."""
        digest = digest_of(content)
        self.blobs.put(digest, content)
        return FileSpec(path=path, digest=digest, size_bytes=len(content))

    def image(self) -> Image:
        """Return an image as a release pins it."""
        config, layer = self.blob(b"{}", "config.json"), self.blob(b"a layer", "layers/00.tar")
        return Image(variants=(ImageVariant(name="amd64", config=config, layers=(layer,)),))

    def release(self, version: str = "1.0.0", **changes: Any) -> ReleaseFact:
        """Lay out a release of one component with a model and an image, and return what is known of it."""
        whole: dict[str, Any] = {
            "name": "head",
            "image": self.image(),
            "models": (ModelMount(name="mind", version="1"),),
            "ports": (Port(name="http", port=8080),),
            **changes,
        }
        weights = self.blob(f"weights of {version}".encode(), "mind.bin")
        spec = ModelSpec(version="1", variants=(Variant(name="only", format="bin", files=(weights,)),))
        release = Release(
            application=Application(
                metadata=Metadata(name="thinker"),
                spec=ApplicationSpec(
                    version=version, components=(Component(**whole),), config=ApplicationConfig()
                ),
            ),
            models=(Model(metadata=Metadata(name="mind"), spec=spec),),
        )
        content = encode_canonical(release)
        digest = digest_of(content)
        self.blobs.put(digest, content)
        fact = self.releases.fact(digest)
        assert fact is not None
        assert fact.problem == ""
        self.releases.prepare(digest)
        fact = self.releases.fact(digest)
        assert fact is not None
        return fact


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_container_finds_its_configuration_where_it_is_mounted(world: World) -> None:
    use = ConfigUse(files=(ConfigFile(path="a/app.json"),), env={"RATE": "rate"})
    fact = world.release(config=use, command=("./run", "--config", "${config}/a/app.json"))
    values = {"rate": 5, "model": "${model.mind}", "port": "${port.http}", "self": "${config}"}
    fact = msgspec.structs.replace(fact, configured=Configured(values=values))
    site = Site("edge", "harbour", dict, configuration=LiveConfiguration(world.place / "configured"))
    launcher = Launcher(site, world.store, world.releases, world.volumes, world.live)
    spec = launcher.launch("thinker", fact, fact.components[0])
    assert spec.container is not None
    (place,) = [mount.source for mount in spec.container.mounts if mount.target == "/skerry/config"]
    assert json.loads((place / "a/app.json").read_text()) == {
        "rate": 5,
        "model": "/skerry/models/mind",
        "port": "8080",
        "self": "/skerry/config",
    }
    assert (place / "a/app.json").stat().st_mode & 0o777 == 0o444
    assert spec.env["RATE"] == "5"
    assert spec.env["SKERRY_CONFIG"] == "/skerry/config"
    assert spec.container.entrypoint == ("./run", "--config", "/skerry/config/a/app.json")


def mounts(world: World, fact: ReleaseFact) -> Mapping[str, tuple[Path, bool]]:
    container = world.launcher.launch("thinker", fact, fact.components[0]).container
    assert container is not None
    return {mount.target: (mount.source, mount.writable) for mount in container.mounts}


def test_a_container_gets_no_more_than_it_states(world: World) -> None:
    fact = world.release()
    spec = world.launcher.launch("thinker", fact, fact.components[0])
    box = spec.container
    assert box is not None
    assert box.image == fact.images["head"]
    assert (box.read_only, box.capabilities, box.devices, box.user) == (True, (), (), "")
    assert box.network.startswith("skerry-thinker-") and box.alias == "head"
    assert box.entrypoint is None and spec.command == ()
    host_port = int(spec.labels["port.http"])
    assert box.ports == {8080: host_port} and host_port != 8080
    assert spec.env["SKERRY_PORT_HTTP"] == "8080"
    assert spec.env["SKERRY_MODEL_MIND"] == "/skerry/models/mind"
    assert "PATH" not in spec.env and "HOME" not in spec.env
    laid_out, writable = mounts(world, fact)["/skerry/models"]
    assert (laid_out / "mind/mind.bin").read_text() == "weights of 1.0.0" and not writable


def test_everything_a_component_asks_for_reaches_its_container(world: World) -> None:
    fact = world.release(
        command=("serve", "${volume.memory}", "${device.eye}", "${site.greeting}"),
        args=("--port", "${port.http}"),
        container=Container(
            user="10001",
            read_only=False,
            capabilities=("NET_RAW",),
            tmpfs=(Tmpfs(path="/tmp", size="1MiB"),),
            init=True,
        ),
        volumes=(Volume(name="memory", path="/var/memory", size="1GiB"),),
        devices=(Device(name="eye", use="camera"),),
        resources=Resources(memory="256MiB", cpu="0.5", pids=64),
    )
    spec = world.launcher.launch("thinker", fact, fact.components[0])
    box = spec.container
    assert box is not None
    assert box.entrypoint == ("serve", "/var/memory", "/dev/video0", "hello")
    assert spec.command == ("--port", "8080")
    assert (box.user, box.read_only, box.capabilities, box.init) == ("10001", False, ("NET_RAW",), True)
    assert (box.tmpfs, box.devices) == ({"/tmp": 1 << 20}, ("/dev/video0",))
    assert (spec.limits.memory_bytes, spec.limits.cpus, spec.limits.pids) == (256 << 20, 0.5, 64)
    source, writable = mounts(world, fact)["/var/memory"]
    assert writable and source == world.volumes.place("thinker", "head", "memory")


def test_a_hot_model_is_a_link_in_a_directory_that_is_mounted_whole(world: World) -> None:
    fact = world.release(on_change=OnChange(signal="HUP"))
    spec = world.launcher.launch("thinker", fact, fact.components[0])
    assert spec.env["SKERRY_MODEL_MIND"] == "/skerry/models/current/mind"
    assert mounts(world, fact)["/skerry/models"] == (world.live.directory(fact.kin), False)
    assert spec.labels["family"] == fact.family


async def test_taking_models_switches_them_all_at_once_and_keeps_those_before(world: World) -> None:
    hot = OnChange(signal="HUP")
    one, two, three = (world.release(f"{n}.0.0", on_change=hot) for n in (1, 2, 3))
    assert one.kin == two.kin == three.kin
    current = world.live.directory(one.kin) / "current/mind/mind.bin"
    for fact, text in ((one, "1.0.0"), (two, "2.0.0"), (one, "1.0.0"), (three, "3.0.0")):
        await world.live.take("thinker", fact)
        assert current.read_text() == f"weights of {text}"
        assert world.live.taken == {fact.kin: fact.digest}
    versions = list((world.live.directory(one.kin) / ".versions").iterdir())
    assert len(versions) == 2, "the one before stays, older ones go"
    world.live.forget(frozenset(), frozenset())
    assert not world.live.directory(one.kin).exists()
    assert world.live.taken == {}


def test_a_self_test_sees_the_models_of_its_release_and_nothing_else(world: World) -> None:
    fact = world.release(
        on_change=OnChange(signal="HUP"),
        self_test=ComponentTest(command=("test", "${self_test}", "${model.mind}")),
        volumes=(Volume(name="memory", path="/var/memory"),),
        env={"PLACE": "${volume.memory}"},
    )
    spec = world.launcher.launch_test("thinker", fact, fact.components[0])
    box = spec.container
    assert box is not None
    assert box.entrypoint == ("test", "/skerry/self-test", "/skerry/models/mind")
    assert spec.command == ()
    assert (box.network, dict(box.ports)) == ("none", {})
    assert "/var/memory" not in {mount.target for mount in box.mounts}
    assert spec.id != world.launcher.launch("thinker", fact, fact.components[0]).id


def test_a_port_is_kept_over_restarts_of_the_agent_and_over_updates_that_end_the_old_release_first(
    world: World,
) -> None:
    one, two = world.release(), world.release("2.0.0", env={"A": "b"})
    port = world.launcher.launch("thinker", one, one.components[0]).labels["port.http"]
    assert world.again().launch("thinker", one, one.components[0]).labels["port.http"] == port
    assert world.launcher.launch("thinker", two, two.components[0]).labels["port.http"] == port
    assert world.launcher.launch("thinker", one, one.components[0]).labels["port.http"] == port


def test_releases_beside_each_other_have_ports_of_their_own(world: World) -> None:
    one, two = world.release(), world.release("2.0.0", env={"A": "b"})
    port = int(world.launcher.launch("thinker", one, one.components[0]).labels["port.http"])
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", port))
        busy.listen()
        other = int(world.launcher.launch("thinker", two, two.components[0]).labels["port.http"])
        assert other != port
        assert int(world.launcher.launch("thinker", one, one.components[0]).labels["port.http"]) == port


def test_what_the_site_gives_no_value_for_is_refused_by_name(world: World) -> None:
    fact = world.release(env={"A": "${site.nothing}"})
    with pytest.raises(Rejected, match=r"\$\{site\.nothing\}"):
        world.launcher.launch("thinker", fact, fact.components[0])


def test_a_device_for_one_alone_is_not_given_to_another_application(world: World) -> None:
    fact = world.release(devices=(Device(name="eye", use="camera"),))
    assert world.releases.devices(fact.digest, "head") == {"eye": "/dev/video0"}
    other = Release(
        application=Application(
            metadata=Metadata(name="watcher"),
            spec=ApplicationSpec(
                version="1.0.0",
                components=(
                    Component(
                        name="watch",
                        image=world.image(),
                        devices=(Device(name="eye", use="camera"),),
                    ),
                ),
            ),
        )
    )
    content = encode_canonical(other)
    world.blobs.put(digest_of(content), content)
    assert world.releases.devices(digest_of(content), "watch") == {"eye": "/dev/video2"}


def test_a_release_of_images_alone_is_laid_out_and_prepared_once_the_engine_has_them(world: World) -> None:
    fact = world.release(models=())
    assert fact.digest in world.releases.laid_out()
    assert not fact.prepared
    world.releases.set_loaded(frozenset(fact.images.values()))
    again = Releases(world.place / "releases", world.blobs)
    for releases in (world.releases, again):
        releases.set_facts(FACTS, SitePolicy())
        releases.set_loaded(frozenset(fact.images.values()))
        known = releases.fact(fact.digest)
        assert known is not None and known.prepared


def test_a_device_that_is_not_there_is_a_reason_against_the_release_and_none_against_what_runs(
    world: World,
) -> None:
    eye = (Device(name="eye", use="camera"),)
    fact = world.release(devices=eye)
    world.there.clear()
    world.releases.set_facts({**FACTS, "hostname": Fact(value="edge", source="test")}, SitePolicy())
    kept = world.releases.fact(fact.digest)
    assert kept is not None and kept.problem == ""
    with pytest.raises(AssertionError, match="/dev/video0, which is not there"):
        world.release("2.0.0", devices=eye)


def test_secrets_are_seen_in_a_container_where_nothing_can_be_written_and_a_self_test_has_none(
    world: World, tmp_path: Path
) -> None:
    fact = world.release(
        secrets=(SecretUse(name="password", path="password"),),
        args=("--password", "${secrets}/password"),
        self_test=ComponentTest(command=("./test",)),
    )
    files = tmp_path / "memory"

    def give(_application: str, _fact: ReleaseFact, _component: Component) -> Given:
        return Given(
            env={"SKERRY_SECRETS": SECRETS}, values={"secrets": SECRETS}, mounts=(Mount(files, SECRETS),)
        )

    site = Site("edge", "harbour", dict, give)
    launcher = Launcher(site, world.store, world.releases, world.volumes, world.live)
    spec = launcher.launch("thinker", fact, fact.components[0])
    assert spec.container is not None
    assert Mount(files, "/skerry/secrets") in spec.container.mounts
    assert spec.command == ("--password", "/skerry/secrets/password")
    assert spec.env["SKERRY_SECRETS"] == "/skerry/secrets"
    tested = launcher.launch_test("thinker", fact, fact.components[0])
    assert tested.container is not None
    assert files not in {mount.source for mount in tested.container.mounts}
    assert "SKERRY_SECRETS" not in tested.env
