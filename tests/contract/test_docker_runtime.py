"""How a ContainerSpec is kept by a real engine: what a container may, sees and reaches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.adapters.docker_runtime import DockerRuntime
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.runtime import ContainerSpec, InstanceSpec, Limits, Mount
from skerry.testing.images import TestImage
from skerry.testing.podman import PodmanService
from skerry.testing.waiting import eventually
from tests.contract.docker_world import DEAF, WAITS, DockerWorld, new_engine

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PodmanService, TestImage]]:
    made = asyncio.run(new_engine(tmp_path_factory.mktemp("engine")))
    yield made
    made[0].close()


@pytest.fixture
async def world(engine: tuple[PodmanService, TestImage]) -> AsyncIterator[DockerWorld]:
    made = DockerWorld(*engine)
    yield made
    await made.clear()
    assert made.networks() == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_container_is_confined_unless_stated(world: DockerWorld) -> None:
    status = await world.output("cat", "/proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    mounts = await world.output("mount")
    assert "overlay on / type overlay (ro," in mounts
    for path in ("/tmp", "/run", "/var/tmp"):
        line = next(line for line in mounts.splitlines() if f" on {path} " in line)
        assert "nosuid,nodev" in line and "size=65536k" in line
    interfaces = await world.output("ls", "/sys/class/net")
    assert interfaces.split() == ["lo"]


async def test_capabilities_are_kept_by_name(world: DockerWorld) -> None:
    status = await world.output("cat", "/proc/self/status", capabilities=("NET_BIND_SERVICE",))
    assert f"CapBnd:\t{1 << 10:016x}" in status


async def test_environment_comes_on_top_of_the_images_own(world: DockerWorld) -> None:
    text = "a,b:c=d \"q\" 'r' $X\nsecond line"
    written = await world.output("env", env={"OURS": text, "EMPTY": ""})
    assert f"OURS={text}\n" in written
    assert "FROM_IMAGE=yes\n" in written
    assert "EMPTY=\n" in written


async def test_entrypoint_user_and_directory_are_as_stated(world: DockerWorld) -> None:
    assert await world.output("a b", "$c", entrypoint=("echo", "x")) == "x a b $c\n"
    assert await world.output("echo", "plain", entrypoint=()) == "plain\n"
    assert "uid=1000(user) gid=1000" in await world.output("id", user="user")
    assert (await world.output("id", user="7:9")).startswith("uid=7(7) gid=9(9)")
    assert await world.output("sh", "-c", "pwd") == "/data\n"
    assert await world.output("sh", "-c", "pwd", directory="/etc") == "/etc\n"


async def test_a_writable_root_and_sizes_of_memory_file_systems(world: DockerWorld) -> None:
    assert await world.output("sh", "-c", "echo x > /etc/new; cat /etc/new", read_only=False) == "x\n"
    mounts = await world.output("mount", tmpfs={"/scratch": 1 << 20, "/tmp": 2 << 20}, shm_bytes=3 << 20)
    sizes = {line.split()[2]: line for line in mounts.splitlines()}
    assert "size=1024k" in sizes["/scratch"]
    assert "size=2048k" in sizes["/tmp"]
    assert "size=3072k" in sizes["/dev/shm"]


async def test_mounts_are_read_only_unless_writable(world: DockerWorld, tmp_path: Path) -> None:
    data, model = tmp_path / "da ta:x", tmp_path / "model.bin"
    data.mkdir()
    model.write_bytes(b"weights\n")
    mounts = (Mount(data, "/data", writable=True), Mount(model, "/models/m.bin"))
    script = "cat /models/m.bin; echo 1 > /data/kept; echo 2 > /models/m.bin || echo refused"
    assert (
        await world.output("sh", "-c", f"{{ {script}; }} 2>/dev/null", mounts=mounts) == "weights\nrefused\n"
    )
    assert (data / "kept").read_text() == "1\n"
    assert model.read_bytes() == b"weights\n"


@pytest.mark.parametrize(
    ("changes", "code"),
    (
        ({"mounts": (Mount(Path("/no/such/place"), "/x"),)}, "runtime.mount_missing"),
        ({"mounts": (Mount(Path("/etc,ro=false"), "/x"),)}, "runtime.mount_invalid"),
        ({"mounts": (Mount(Path("/etc"), "/x,destination=/y"),)}, "runtime.mount_invalid"),
        ({"mounts": (Mount(Path("etc"), "/x"),)}, "runtime.mount_invalid"),
        ({"tmpfs": {"/x:exec": 1}}, "runtime.mount_invalid"),
        ({"devices": ("/dev/no-such-device",)}, "runtime.device_missing"),
        ({"devices": ("/etc/passwd",)}, "runtime.device_invalid"),
        ({"devices": ("/dev/../etc/passwd",)}, "runtime.device_invalid"),
        ({"devices": ("skerry.test/thing=none",)}, "runtime.device_missing"),
        ({"capabilities": ("NO_SUCH",)}, "runtime.capability_unknown"),
        ({"user": "nobody-here"}, "runtime.user_unknown"),
        ({"ports": {80: 8080}}, "runtime.cannot"),
        ({"ports": {80: 8080}, "network": "host"}, "runtime.cannot"),
    ),
)
async def test_what_cannot_be_is_rejected_and_leaves_nothing(
    world: DockerWorld, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(Rejected) as caught:
        await world.start(*WAITS, **changes)
    assert caught.value.code == code
    assert world.containers() == []
    assert "no" not in os.listdir("/")  # noqa: PTH208 - an engine may make what is to be mounted


async def test_a_limit_that_cannot_be_kept_is_rejected(world: DockerWorld) -> None:
    with pytest.raises(Rejected) as caught:
        await world.runtime.start(world.spec(*WAITS, limits=Limits(memory_bytes=1000)))
    assert caught.value.code == "runtime.limit_impossible"
    assert world.containers() == []


async def test_what_is_not_executable_is_rejected(world: DockerWorld) -> None:
    with pytest.raises(Rejected) as caught:
        await world.start("/etc")
    assert caught.value.code == "runtime.not_executable"


async def test_a_process_of_the_host_is_rejected(world: DockerWorld) -> None:
    with pytest.raises(Rejected) as caught:
        await world.runtime.start(InstanceSpec(id="one", command=("true",), env={}, directory=Path("/")))
    assert caught.value.code == "runtime.cannot"


async def test_an_image_that_is_not_there_can_be_loaded_and_tried_again(world: DockerWorld) -> None:
    container = ContainerSpec(image="sha256:" + "0" * 64)
    with pytest.raises(Unavailable) as caught:
        await world.runtime.start(world.spec(*WAITS, container=container))
    assert caught.value.code == "runtime.image_missing"
    assert world.containers() == []


async def test_limits_are_kept_by_the_kernel(world: DockerWorld) -> None:
    limits = Limits(memory_bytes=64 << 20, cpus=0.25, pids=20)
    await world.runtime.start(world.spec(*WAITS, limits=limits))
    assert (await world.view()).limits == {"memory": "cgroup", "cpu": "cgroup", "pids": "cgroup"}
    config = (await world.inspect())["HostConfig"]
    assert config["Memory"] == config["MemorySwap"] == 64 << 20
    many = (
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do sleep 9 & done",
    )
    # The shell that cannot fork any more says so and fails.
    assert (await world.runtime.execute("one", many, timeout_s=20)).exit_code != 0


async def test_devices_are_given_by_path(world: DockerWorld) -> None:
    assert "/dev/fuse" not in await world.output("sh", "-c", "ls -d /dev/*")
    assert (await world.output("ls", "/dev/fuse", devices=("/dev/fuse",))) == "/dev/fuse\n"


@pytest.fixture
def cdi_device() -> Iterator[str]:
    """A device by CDI name, in the one place where engines look for those of this boot."""
    file = Path("/run/cdi/skerry-test.json")
    edits = {"env": ["FROM_CDI=yes"], "deviceNodes": [{"path": "/dev/fuse"}]}
    devices = [{"name": "first", "containerEdits": edits}]
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"cdiVersion": "0.3.0", "kind": "skerry.test/thing", "devices": devices}))
    yield "skerry.test/thing=first"
    file.unlink()
    with contextlib.suppress(OSError):
        file.parent.rmdir()


async def test_devices_are_given_by_cdi_name_and_all_else_stays(
    world: DockerWorld, cdi_device: str, tmp_path: Path
) -> None:
    assert "cdi" in (await world.runtime.engine()).can
    show = "env; ls /dev/fuse; cat /proc/self/status; mount; cat /data/x; id; pwd"
    script = ("sh", "-c", show)
    (tmp_path / "x").write_text("mounted\n")
    changes: dict[str, Any] = {
        "mounts": (Mount(tmp_path / "x", "/data/x"),),
        "user": "user",
        "directory": "/etc",
        "network": "skerry-app-1",
        "alias": "cdi",
        "capabilities": ("NET_RAW",),
        "tmpfs": {"/scratch": 1 << 20},
    }
    seen = await world.output(*script, env={"OURS": "1"}, devices=(cdi_device,), **changes)
    for word in (
        "FROM_CDI=yes",
        "FROM_IMAGE=yes",
        "OURS=1",
        "/dev/fuse\n",
        "mounted\n",
        "uid=1000(user)",
        "/etc\n",
    ):
        assert word in seen
    assert f"CapBnd:\t{1 << 13:016x}" in seen and "NoNewPrivs:\t1" in seen
    assert "overlay on / type overlay (ro," in seen
    assert "size=1024k" in next(line for line in seen.splitlines() if " on /scratch " in line)
    limits = Limits(memory_bytes=64 << 20, cpus=0.5, pids=30)
    container = world.container(devices=(cdi_device,), **changes)
    await world.runtime.start(world.spec(*WAITS, limits=limits, container=container))
    assert (await world.view()).limits == {"memory": "cgroup", "cpu": "cgroup", "pids": "cgroup"}
    assert (await world.inspect())["NetworkSettings"]["Networks"][f"skerry-app-1.{world.owner}"]["Aliases"][
        0
    ] == "cdi"


async def test_a_first_process_of_the_engines_can_be_had(world: DockerWorld) -> None:
    await world.start("sleep", "3600", init=True)
    await world.runtime.stop("one", signal="SIGTERM", grace_s=30)
    assert (await world.reaches("exited")).exit_code == -15


async def test_components_of_one_network_find_each_other_by_name(world: DockerWorld) -> None:
    page = (
        "mkdir -p /tmp/www; echo found > /tmp/www/index.html; echo ready; exec httpd -f -p 8080 -h /tmp/www"
    )
    await world.start("sh", "-c", page, name="server", network="skerry-app-1", alias="web")
    await world.is_ready("server")
    # A static busybox cannot resolve names; the host's shell can, and connect as well.
    talk = "exec 3<>/dev/tcp/web/8080 && printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3 | tail -n 1"
    ask = ("sh", "-c", f'/usr/bin/bash -c "{talk}" 2>/dev/null || echo nothing')
    host = tuple(
        Mount(Path("/usr", name), target)
        for name, target in (("", "/usr"), ("lib", "/lib"), ("lib64", "/lib64"))
    )
    assert await world.output(*ask, network="skerry-app-1", mounts=host) == "found\n"
    # Also one that is told of a DNS, which knows nothing of them.
    assert await world.output(*ask, network="skerry-app-1", mounts=host, dns=("192.0.2.53",)) == "found\n"
    assert await world.output(*ask, network="skerry-app-2", mounts=host) == "nothing\n"


async def test_ports_are_published_on_the_loopback_address_only(world: DockerWorld) -> None:
    port = free_port()
    page = "mkdir -p /tmp/www; echo found > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
    await world.start("sh", "-c", page, network="skerry-app-1", ports={8080: port})

    async def answers() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            content = await reader.read()
            writer.close()
        except OSError:
            return False
        return b"found" in content

    await eventually(answers, what="the answer of the container")
    bindings = (await world.inspect())["NetworkSettings"]["Ports"]
    assert bindings == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}


async def test_a_port_that_is_taken_is_unavailable_and_leaves_nothing(world: DockerWorld) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable) as caught:
            await world.start(*WAITS, network="skerry-app-1", ports={8080: taken.getsockname()[1]})
    assert caught.value.code == "runtime.port_taken"
    assert (world.containers(), world.networks()) == ([], [])


async def test_a_network_lives_as_long_as_its_containers(world: DockerWorld) -> None:
    names = [f"c{number}" for number in range(4)]
    await asyncio.gather(*(world.start(*WAITS, name=name, network="skerry-app-1") for name in names))
    assert world.networks() == [f"skerry-app-1.{world.owner}"]
    for name in names[1:]:
        await world.runtime.remove(name)
    assert world.networks() == [f"skerry-app-1.{world.owner}"]
    await world.runtime.remove(names[0])
    assert world.networks() == []


async def test_the_hosts_network_is_the_hosts(world: DockerWorld) -> None:
    interfaces = await world.output("ls", "/sys/class/net", network="host")
    assert "lo" in interfaces.split()
    inner = await world.output("readlink", "/proc/self/ns/net", network="host")
    assert inner.strip() == os.readlink("/proc/self/ns/net")  # noqa: PTH115
    inner = await world.output("readlink", "/proc/self/ns/net", network="none")
    assert inner.strip() != os.readlink("/proc/self/ns/net")  # noqa: PTH115


async def test_containers_of_others_are_never_seen_or_touched(world: DockerWorld) -> None:
    other = DockerWorld(world.podman, world.image)
    await other.start(*WAITS)
    # A person's container, from an image or a command line that copied our labels.
    labels = (f"--label=io.skerry.owner={world.owner}", "--label=io.skerry.instance=one")
    world.podman.podman("create", "--name", f"mine-{world.owner}", *labels, world.image.identity, "true")
    assert await world.runtime.instances() == {}
    await world.runtime.remove("one")
    await world.start(*WAITS)
    await world.runtime.remove("one")
    assert (await other.view()).state == "running"
    assert world.containers() == [f"mine-{world.owner}"]
    await other.clear()


async def test_the_log_takes_little_room_on_disk(world: DockerWorld) -> None:
    prints = ("sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the-end")
    await world.runtime.start(world.spec(*prints, limits=Limits(log_bytes=64 << 10)))
    await world.reaches("exited")
    config = (await world.inspect())["HostConfig"]["LogConfig"]
    assert os.stat(config["Path"]).st_size <= 4 * (64 << 10)  # noqa: PTH116
    assert (await world.runtime.logs("one", tail_bytes=8)) == b"the-end\n"


async def test_both_streams_are_in_the_log(world: DockerWorld) -> None:
    assert await world.output("sh", "-c", "echo out; echo err >&2") in ("out\nerr\n", "err\nout\n")


async def test_a_command_that_ran_past_its_time_is_gone(world: DockerWorld) -> None:
    await world.start(*WAITS)
    await world.is_ready()
    late = ("sh", "-c", "sleep 4711 & sleep 4712")
    assert (await world.runtime.execute("one", late, timeout_s=0.5)).exit_code == 124

    async def is_gone() -> bool:
        listed = await world.runtime.execute("one", ("ps", "-o", "args"), timeout_s=20)
        return b"sleep 471" not in listed.output

    await eventually(is_gone, what="the end of the late command")
    assert (await world.view()).state == "running"


async def test_a_signal_reaches_the_component_which_goes_on(world: DockerWorld) -> None:
    await world.start("sh", "-c", "trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.05; done")
    await world.is_ready()
    await world.runtime.signal("one", "SIGHUP")

    async def has_reloaded() -> bool:
        return b"reloaded" in await world.runtime.logs("one", tail_bytes=100)

    await eventually(has_reloaded, what="the reload")
    assert (await world.view()).state == "running"
    await world.runtime.signal("nobody", "SIGHUP")
    with pytest.raises(Rejected):
        await world.runtime.signal("one", "SIGNONE")


async def test_eight_runtimes_at_once_start_one_container(world: DockerWorld) -> None:
    runtimes = [world.again() for _ in range(8)]
    results = await asyncio.gather(
        *(runtime.start(world.spec(*DEAF)) for runtime in runtimes), return_exceptions=True
    )
    assert all(result is None or isinstance(result, Unavailable) for result in results)

    async def is_one() -> bool:
        await world.runtime.instances()
        return world.containers() == [f"skerry-{world.owner}-one"]

    await eventually(is_one, what="one container with its plain name")
    assert (await world.view()).state == "running"


async def test_the_engine_says_what_it_is(world: DockerWorld) -> None:
    engine = await world.runtime.engine()
    assert engine.name == "podman"
    assert engine.version.split(".")[0].isdigit()
    assert not engine.rootless
    assert engine.can >= {"containers", "networks", "devices"}
    world.podman.pause()
    world.podman.resume()
    assert await world.runtime.engine() == engine


async def test_an_engine_that_is_away_is_unavailable(tmp_path: Path) -> None:
    runtime = DockerRuntime(tmp_path / "nothing.sock", owner="nobody")
    for call in (runtime.engine(), runtime.instances(), runtime.remove("one")):
        with pytest.raises(Unavailable):
            await call


@pytest.mark.parametrize("name", ("", "a/b", "..", "a b", "x.new", "x.stop-00000000-1-1", "é"))
async def test_a_name_that_no_container_can_have_is_rejected(world: DockerWorld, name: str) -> None:
    with pytest.raises(Rejected) as caught:
        await world.start(*WAITS, name=name)
    assert caught.value.code == "runtime.id_invalid"
