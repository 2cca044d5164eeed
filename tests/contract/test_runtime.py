"""What every Runtime promises, asked of each adapter with the same questions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from skerry.adapters.docker_images import DockerImages
from skerry.adapters.docker_runtime import DockerRuntime
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.adapters.system_clock import SystemClock
from skerry.kit.errors import Rejected
from skerry.ports.runtime import ContainerSpec, ExecResult, InstanceSpec, InstanceView, Limits, Runtime
from skerry.testing.fake_runtime import Behaviour, FakeHost, FakeRuntime
from skerry.testing.images import make_image
from skerry.testing.podman import PodmanService
from skerry.testing.processes import processes_of
from skerry.testing.waiting import eventually

Command = tuple[str, ...]
LOG_BYTES = 64 << 10
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class World(Protocol):
    """One adapter, and commands that do there what their names say."""

    runtime: Runtime
    directory: Path
    container: ContainerSpec | None
    # How much of a long output is there at least, of LOG_BYTES. An engine may keep less than the last half.
    log_floor: int

    def again(self) -> Runtime: ...
    def runs(self) -> Command: ...
    def exits(self, code: int) -> Command: ...
    def kills_itself(self) -> Command: ...
    def is_deaf(self) -> Command: ...
    def prints(self, head: int, tail: str) -> Command: ...
    def missing(self) -> Command: ...


class ShellCommands:
    """What a shell does, as a process of the host and in a container alike."""

    def exits(self, code: int) -> Command:
        return ("sh", "-c", f"echo ready; exit {code}")

    def is_deaf(self) -> Command:
        return ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done")

    def prints(self, head: int, tail: str) -> Command:
        return ("sh", "-c", f"head -c {head} /dev/zero | tr '\\0' x; echo {tail}; echo ready")

    def missing(self) -> Command:
        return ("no-such-command-anywhere",)


class ProcessWorld(ShellCommands):
    """Real processes."""

    container: ContainerSpec | None = None
    log_floor = LOG_BYTES // 2

    def __init__(self, place: Path) -> None:
        self._place = place
        self.directory = place / "work"
        self.directory.mkdir()
        self.runtime: Runtime = self.again()

    def again(self) -> Runtime:
        return ProcessRuntime(self._place / "instances")

    def runs(self) -> Command:
        return ("sh", "-c", "echo ready; exec sleep 3600")

    def kills_itself(self) -> Command:
        return ("sh", "-c", "echo ready; kill -9 $$")


class FakeWorld:
    """Pretended ones."""

    container: ContainerSpec | None = None
    log_floor = LOG_BYTES // 2

    def __init__(self, place: Path) -> None:
        self.directory = place
        self._host = FakeHost()
        self._clock = SystemClock()
        self._fake = FakeRuntime(self._clock, self._host)
        self.runtime: Runtime = self._fake

    def again(self) -> Runtime:
        return FakeRuntime(self._clock, self._host)

    def _behave(self, name: str, behaviour: Behaviour) -> Command:
        self._fake.behave((name,), behaviour)
        return (name,)

    def runs(self) -> Command:
        executes: Mapping[Command, ExecResult] = {
            ("echo", "hello"): ExecResult(0, b"hello\n"),
            ("sh", "-c", "exit 3"): ExecResult(3, b""),
            ("sleep", "3600"): ExecResult(124, b""),
            ("head", "-c", "100000", "/dev/zero"): ExecResult(0, bytes(100_000)),
        }
        return self._behave("runs", Behaviour(output=b"ready\n", executes=executes))

    def exits(self, code: int) -> Command:
        return self._behave(f"exits-{code}", Behaviour(output=b"ready\n", exits_after_s=0.02, exit_code=code))

    def kills_itself(self) -> Command:
        return self._behave("killed", Behaviour(output=b"ready\n", exits_after_s=0.02, exit_code=-9))

    def is_deaf(self) -> Command:
        return self._behave("deaf", Behaviour(output=b"ready\n", ignores_stop=True))

    def prints(self, head: int, tail: str) -> Command:
        output = b"x" * head + f"{tail}\nready\n".encode()
        return self._behave("prints", Behaviour(output=output, exits_after_s=0.02))

    def missing(self) -> Command:
        refusal = Rejected("runtime.command_missing", "no such command")
        return self._behave("missing", Behaviour(refuses=refusal))


class PodmanWorld(ShellCommands):
    """Real containers; the first process of one is deaf to signals that it does not handle."""

    # Podman empties a full log, however full it was; what came last is always there.
    log_floor = len(b"the-end\nready\n")
    _owners = itertools.count()

    def __init__(self, service: PodmanService, image: str, place: Path) -> None:
        self.directory = place
        self.container: ContainerSpec | None = ContainerSpec(image=image)
        self._service = service
        self._owner = f"contract-{next(self._owners)}"
        self.runtime: Runtime = self.again()

    def again(self) -> Runtime:
        return DockerRuntime(self._service.socket, owner=self._owner)

    def runs(self) -> Command:
        return ("sh", "-c", "trap 'exit 130' INT; trap 'exit 143' TERM; echo ready; sleep 3600 & wait")

    def kills_itself(self) -> Command:
        return ("sh", "-c", "echo ready; sh -c 'kill -9 $$'; exit $?")


class Engine:
    """One Podman for all tests of this module, with the image loaded when the first one needs it."""

    def __init__(self, place: Path) -> None:
        self.service = PodmanService(place / "podman")
        self.image = make_image(place / "image")
        self._is_open = False

    async def open(self) -> None:
        if not self._is_open:
            self.service.__enter__()
            self._is_open = True
            await DockerImages(self.service.socket, owner="contract").load(self.image.parts, self.image.blob)

    def close(self) -> None:
        self.service.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.close()


@pytest.fixture(params=("process", "fake", pytest.param("podman", marks=pytest.mark.podman)))
async def world(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> AsyncIterator[World]:
    """A world with nothing in it; whatever a test starts there is gone afterwards."""
    made: World = ProcessWorld(tmp_path) if request.param == "process" else FakeWorld(tmp_path)
    if request.param == "podman":
        await engine.open()
        made = PodmanWorld(engine.service, engine.image.identity, tmp_path)
    yield made
    runtime = made.again()
    for instance_id in await runtime.instances():
        await runtime.remove(instance_id)
    assert await runtime.instances() == {}

    async def is_empty() -> bool:
        return not processes_of(tmp_path)

    await eventually(is_empty, what="the end of all processes")


async def start(
    world: World, command: Command, name: str = "one", labels: Mapping[str, str] | None = None
) -> None:
    spec = InstanceSpec(
        id=name,
        command=command,
        env=ENV,
        directory=world.directory,
        limits=Limits(log_bytes=LOG_BYTES),
        labels=labels or {},
        container=world.container,
    )
    await world.runtime.start(spec)


async def view(world: World, name: str = "one") -> InstanceView:
    return (await world.runtime.instances())[name]


async def reaches(world: World, state: str, name: str = "one") -> InstanceView:
    async def look() -> InstanceView | None:
        seen = await view(world, name)
        return seen if seen.state == state else None

    return await eventually(look, what=f"{name} {state}")


async def is_ready(world: World, name: str = "one") -> None:
    async def look() -> bool:
        return (await world.runtime.logs(name, tail_bytes=100)).endswith(b"ready\n")

    await eventually(look, what=f"{name} ready")


async def test_what_was_started_runs_and_carries_its_labels(world: World) -> None:
    await start(world, world.runs(), labels={"release": "a@1"})
    seen = await view(world)
    assert (seen.id, seen.state, seen.labels) == ("one", "running", {"release": "a@1"})
    assert seen.pid > 0
    assert seen.started_at is not None
    assert seen.exit_code is None
    assert seen.ended_at is None


async def test_starting_twice_leaves_one_process(world: World) -> None:
    await start(world, world.runs())
    first = await view(world)
    await start(world, world.runs())
    assert await view(world) == first


async def test_starting_many_times_at_once_leaves_one_process(world: World) -> None:
    await asyncio.gather(*(start(world, world.runs()) for _ in range(8)))
    await is_ready(world)
    assert (await world.runtime.logs("one", tail_bytes=1000)).count(b"ready") == 1


async def test_a_new_runtime_finds_what_an_earlier_one_started(world: World) -> None:
    await start(world, world.runs(), labels={"a": "b"})
    first = await view(world)
    world.runtime = world.again()
    assert await view(world) == first
    await start(world, world.runs())
    assert await view(world) == first


@pytest.mark.parametrize("code", (0, 7))
async def test_the_exit_code_is_seen(world: World, code: int) -> None:
    await start(world, world.exits(code))
    seen = await reaches(world, "exited")
    assert seen.exit_code == code
    assert seen.pid == 0
    assert seen.started_at is not None
    assert seen.ended_at is not None
    assert seen.ended_at >= seen.started_at


async def test_a_signal_that_ended_it_is_a_negative_exit_code(world: World) -> None:
    await start(world, world.kills_itself())
    assert (await reaches(world, "exited")).exit_code == -9


async def test_one_that_has_exited_is_started_anew(world: World) -> None:
    await start(world, world.exits(3))
    await reaches(world, "exited")
    await start(world, world.runs(), labels={"try": "2"})
    seen = await view(world)
    assert (seen.state, seen.exit_code, seen.labels) == ("running", None, {"try": "2"})


async def test_stop_ends_it_with_the_signal(world: World) -> None:
    await start(world, world.runs())
    await is_ready(world)
    await world.runtime.stop("one", signal="SIGINT", grace_s=20)
    assert (await reaches(world, "exited")).exit_code == -2


async def test_one_that_ignores_the_signal_is_killed_after_the_grace(world: World) -> None:
    await start(world, world.is_deaf())
    await is_ready(world)
    asked = asyncio.get_running_loop().time()
    await world.runtime.stop("one", signal="SIGTERM", grace_s=0.5)
    assert asyncio.get_running_loop().time() - asked < 0.4
    assert (await view(world)).state == "stopping"
    assert (await reaches(world, "exited")).exit_code == -9
    assert asyncio.get_running_loop().time() - asked >= 0.5


async def test_asking_again_shortens_the_grace_and_never_prolongs_it(world: World) -> None:
    await start(world, world.is_deaf(), "one")
    await start(world, world.is_deaf(), "two")
    await is_ready(world, "one")
    await is_ready(world, "two")
    await world.runtime.stop("one", signal="SIGTERM", grace_s=0.5)
    await world.runtime.stop("one", signal="SIGTERM", grace_s=3600)
    await world.runtime.stop("two", signal="SIGTERM", grace_s=3600)
    await world.runtime.stop("two", signal="SIGTERM", grace_s=0.5)
    assert (await reaches(world, "exited", "one")).exit_code == -9
    assert (await reaches(world, "exited", "two")).exit_code == -9


async def test_starting_one_that_is_stopping_leaves_it_be(world: World) -> None:
    await start(world, world.is_deaf())
    await is_ready(world)
    await world.runtime.stop("one", signal="SIGTERM", grace_s=3600)
    before = await view(world)
    await start(world, world.is_deaf())
    assert await view(world) == before


async def test_stopping_what_is_unknown_or_ended_is_fine(world: World) -> None:
    await world.runtime.stop("nobody", signal="SIGTERM", grace_s=1)
    await start(world, world.exits(0))
    before = await reaches(world, "exited")
    await world.runtime.stop("one", signal="SIGTERM", grace_s=1)
    assert await view(world) == before


async def test_an_unknown_signal_is_rejected(world: World) -> None:
    await start(world, world.runs())
    with pytest.raises(Rejected) as caught:
        await world.runtime.stop("one", signal="SIGNONE", grace_s=1)
    assert caught.value.code == "runtime.signal_unknown"


async def test_remove_forgets_instance_and_log(world: World) -> None:
    await start(world, world.exits(0))
    await reaches(world, "exited")
    await world.runtime.remove("one")
    assert await world.runtime.instances() == {}
    assert await world.runtime.logs("one", tail_bytes=100) == b""
    await world.runtime.remove("one")


async def test_remove_kills_one_that_runs_even_if_it_is_deaf(world: World) -> None:
    await start(world, world.is_deaf(), "one")
    await start(world, world.runs(), "two")
    await is_ready(world)
    await world.runtime.remove("one")
    assert set(await world.runtime.instances()) == {"two"}


async def test_the_log_is_bounded_and_its_tail_is_right(world: World) -> None:
    await start(world, world.prints(5_000_000, "the-end"))
    await reaches(world, "exited")
    everything = await world.runtime.logs("one", tail_bytes=10_000_000)
    assert world.log_floor <= len(everything) <= LOG_BYTES
    assert everything.endswith(b"the-end\nready\n")
    assert everything[:-14].strip(b"x\n") == b""
    assert await world.runtime.logs("one", tail_bytes=14) == b"the-end\nready\n"
    assert await world.runtime.logs("one", tail_bytes=40_000) == everything[-40_000:]
    assert await world.runtime.logs("one", tail_bytes=0) == b""


async def test_output_is_read_on_from_a_mark_and_nothing_comes_twice(world: World) -> None:
    await start(world, world.prints(30_000, "the-end"))
    await reaches(world, "exited")
    mark, read = "", b""
    for _ in range(100):
        output = await world.runtime.output("one", mark=mark, limit=10_000)
        assert not output.lost
        read += b"".join(piece for _, piece in output.pieces)
        mark = output.mark
        if not output.more:
            break
    assert read.replace(b"\n", b"") == b"x" * 30_000 + b"the-endready"
    assert (await world.runtime.output("one", mark=mark, limit=10_000)).pieces == ()
    again = await world.again().output("one", mark=mark, limit=10_000)
    assert (again.pieces, again.mark) == ((), mark)


async def test_what_is_written_after_a_mark_is_read_after_it(world: World) -> None:
    await start(world, world.exits(0))
    await reaches(world, "exited")
    first = await world.runtime.output("one", mark="", limit=1 << 20)
    assert b"".join(piece for _, piece in first.pieces) == b"ready\n"
    await start(world, world.exits(0))

    async def read() -> bytes:
        output = await world.runtime.output("one", mark=first.mark, limit=1 << 20)
        return b"".join(piece for _, piece in output.pieces)

    assert await eventually(read, what="what the second run wrote") == b"ready\n"


async def test_the_output_of_nobody_is_empty(world: World) -> None:
    assert (await world.runtime.output("nobody", mark="", limit=100)).pieces == ()


async def test_the_log_of_nobody_is_empty(world: World) -> None:
    assert await world.runtime.logs("nobody", tail_bytes=100) == b""


async def test_a_missing_command_is_rejected_and_leaves_no_instance(world: World) -> None:
    for command in (world.missing(), ()):
        with pytest.raises(Rejected) as caught:
            await start(world, command)
        assert caught.value.code == "runtime.command_missing"
    assert await world.runtime.instances() == {}


async def test_a_start_that_is_rejected_keeps_how_the_last_run_ended(world: World) -> None:
    await start(world, world.exits(3))
    before = await reaches(world, "exited")
    with pytest.raises(Rejected):
        await start(world, world.missing())
    assert await view(world) == before


async def test_a_command_beside_it_answers(world: World) -> None:
    await start(world, world.runs())
    runtime = world.runtime
    assert await runtime.execute("one", ("echo", "hello"), timeout_s=20) == ExecResult(0, b"hello\n")
    assert await runtime.execute("one", ("sh", "-c", "exit 3"), timeout_s=20) == ExecResult(3, b"")
    assert (await runtime.execute("one", ("no-such-command",), timeout_s=20)).exit_code == 127
    assert (await runtime.execute("one", (), timeout_s=20)).exit_code == 127
    assert (await runtime.execute("nobody", ("echo", "hello"), timeout_s=20)).exit_code == 127


async def test_a_command_beside_it_has_a_time_limit_and_little_output(world: World) -> None:
    await start(world, world.runs())
    assert (await world.runtime.execute("one", ("sleep", "3600"), timeout_s=0.2)).exit_code == 124
    much = await world.runtime.execute("one", ("head", "-c", "100000", "/dev/zero"), timeout_s=20)
    assert much == ExecResult(0, bytes(4096))


async def test_nothing_runs_beside_what_has_ended(world: World) -> None:
    await start(world, world.exits(0))
    await reaches(world, "exited")
    assert (await world.runtime.execute("one", ("echo", "hello"), timeout_s=20)).exit_code == 127


async def test_each_limit_that_was_asked_names_what_keeps_it(world: World) -> None:
    limits = Limits(memory_bytes=512 << 20, cpus=0.5)
    spec = InstanceSpec(
        id="one",
        command=world.runs(),
        env=ENV,
        directory=world.directory,
        limits=limits,
        container=world.container,
    )
    await world.runtime.start(spec)
    await start(world, world.runs(), "two")
    views = await world.runtime.instances()
    assert set(views["one"].limits) == {"memory", "cpu"}
    assert views["two"].limits == {}
