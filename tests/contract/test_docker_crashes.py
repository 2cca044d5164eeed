"""What a container runtime makes of kills, restarts and power cuts at every place, on a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from skerry.adapters.docker_names import StopMark, boot_ms, run_of
from skerry.kit.errors import Unavailable
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
    if not engine[0].pid:
        engine[0].start()
    made = DockerWorld(*engine)
    yield made
    engine[0].resume()
    if not engine[0].pid:
        engine[0].start()
    await made.clear()
    assert made.networks() == []


async def conmon_of(world: DockerWorld, name: str = "one") -> int:
    return int((await world.inspect(name))["State"]["ConmonPid"])


async def test_a_killed_process_is_a_signal(world: DockerWorld) -> None:
    await world.start(*WAITS)
    os.kill((await world.view()).pid, signal.SIGKILL)
    assert (await world.reaches("exited")).exit_code == -9


async def test_without_conmon_a_container_goes_on_and_ends_lost(world: DockerWorld) -> None:
    await world.start(*WAITS)
    before = await world.view()
    os.kill(await conmon_of(world), signal.SIGKILL)
    assert await world.again().instances() == {"one": before}
    await world.runtime.stop("one", signal="SIGTERM", grace_s=5)
    seen = await world.reaches("lost")
    assert (seen.exit_code, seen.pid) == (None, 0)


async def test_conmon_and_process_killed_is_lost_and_starts_anew(world: DockerWorld) -> None:
    await world.start(*WAITS, network="skerry-app-1")
    conmon, pid = await conmon_of(world), (await world.view()).pid
    os.kill(conmon, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await world.reaches("lost")
    await world.start(*WAITS, network="skerry-app-1")
    seen = await world.view()
    assert seen.state == "running" and seen.pid != pid
    assert len(world.containers("one")) == 1


async def test_what_is_lost_can_be_removed(world: DockerWorld) -> None:
    await world.start(*WAITS)
    pid = (await world.view()).pid
    os.kill(await conmon_of(world), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await world.reaches("lost")
    await world.runtime.remove("one")
    assert world.containers() == []


def create_only(world: DockerWorld, ending: str) -> None:
    """Leave what an agent leaves that dies between create and start."""
    labels = (f"--label=io.skerry.owner={world.owner}", "--label=io.skerry.instance=one")
    name = f"skerry-{world.owner}-one{ending}"
    world.podman.podman("create", "--name", name, *labels, world.image.identity, *WAITS)


@pytest.mark.parametrize("ending", ("", ".new"))
async def test_what_was_made_and_never_started_is_no_instance_and_goes(
    world: DockerWorld, ending: str
) -> None:
    create_only(world, ending)
    assert await world.runtime.instances() == {}

    async def is_gone() -> bool:
        return world.containers() == []

    await eventually(is_gone, what="the end of the half start")


@pytest.mark.parametrize("ending", ("", ".new"))
async def test_a_start_replaces_what_was_made_and_never_started(world: DockerWorld, ending: str) -> None:
    create_only(world, ending)
    await world.start(*WAITS)
    assert (await world.view()).state == "running"
    assert world.containers() == [f"skerry-{world.owner}-one"]


async def test_an_engine_killed_during_a_start_leaves_nothing_that_cannot_be_started(
    world: DockerWorld,
) -> None:
    killed_after = (0.005, 0.03, 0.06, 0.1, 0.2)
    for delay_s in killed_after:
        asked = asyncio.create_task(world.start(*WAITS))
        await asyncio.sleep(delay_s)
        world.podman.kill()
        await asyncio.gather(asked, return_exceptions=True)
        world.podman.start()
        await world.start(*WAITS)
        assert (await world.view()).state == "running"

        async def is_one() -> bool:
            await world.runtime.instances()
            return world.containers() == [f"skerry-{world.owner}-one"]

        await eventually(is_one, what="one container")
        await world.runtime.remove("one")


async def test_a_container_that_only_the_engines_storage_knows_does_not_keep_its_name_for_ever(
    world: DockerWorld,
) -> None:
    name = f"skerry-{world.owner}-one.new"
    world.podman.podman("create", "--name", name, world.image.identity, "true")
    world.podman.kill()
    # What Podman leaves when it is killed between its storage and its own records.
    (world.podman.folder / "graph/libpod/bolt_state.db").unlink()
    world.podman.start()
    assert "Storage" in world.podman.podman("ps", "--all", "--external", "--format", "{{.Status}}")
    await world.start(*WAITS)
    assert (await world.view()).state == "running"


async def test_containers_outlive_the_engines_service_and_are_adopted(world: DockerWorld) -> None:
    await world.start(*WAITS, network="skerry-app-1")
    before = await world.view()
    world.podman.kill()
    with pytest.raises(Unavailable):
        await world.runtime.instances()
    world.podman.start()
    assert await world.runtime.instances() == {"one": before}
    assert await world.again().instances() == {"one": before}
    await world.again().start(world.spec(*WAITS))
    assert await world.view() == before


async def test_after_a_power_cut_all_is_lost_and_starts_again(world: DockerWorld) -> None:
    await world.start(*WAITS, network="skerry-app-1")
    await world.start("true", name="two")
    ended = await world.reaches("exited", "two")
    world.podman.power_cut()
    world.podman.start()
    runtime = world.again()
    views = await runtime.instances()
    assert (views["one"].state, views["one"].exit_code) == ("lost", None)
    # Podman keeps the end of one that it had cleaned up after, which is a moment later.
    assert views["two"] == ended or views["two"].state == "lost"
    await world.start(*WAITS, network="skerry-app-1")
    assert (await world.view()).state == "running"
    assert len(world.containers("one")) == 1


async def test_what_podman_brings_back_after_a_power_cut_is_adopted(world: DockerWorld) -> None:
    await world.start(*WAITS, network="skerry-app-1")
    world.podman.power_cut()
    world.podman.podman("start", "--all", "--filter", f"label=io.skerry.owner={world.owner}")
    world.podman.start()
    runtime = world.again()
    seen = (await runtime.instances())["one"]
    assert seen.state == "running" and seen.pid > 0
    await runtime.start(world.spec(*WAITS))
    assert (await runtime.instances())["one"] == seen


async def test_of_two_that_run_for_one_instance_one_stays(world: DockerWorld) -> None:
    await world.start(*WAITS)
    create_only(world, ".new")
    world.podman.podman("start", f"skerry-{world.owner}-one.new")
    await world.runtime.instances()

    async def is_one() -> bool:
        await world.runtime.instances()
        return world.containers() == [f"skerry-{world.owner}-one"]

    await eventually(is_one, what="one container")
    assert (await world.view()).state == "running"


async def test_the_engine_ends_the_grace_when_the_agent_dies(world: DockerWorld) -> None:
    await world.start(*DEAF)
    await world.is_ready()
    # An agent that asks, and is gone before its own deadline.
    agent = threading.Thread(
        target=lambda: asyncio.run(world.again().stop("one", signal="SIGTERM", grace_s=1)), daemon=True
    )
    agent.start()
    await asyncio.to_thread(agent.join)

    async def has_ended() -> bool:
        return bool((await world.inspect())["State"]["Status"] == "exited")

    await eventually(has_ended, what="the kill by the engine")
    assert (await world.view()).exit_code == -9


@pytest.mark.parametrize("asked", ("SIGTERM", "SIGINT"))
async def test_a_later_agent_ends_the_grace_although_the_engine_was_killed(
    world: DockerWorld, asked: str
) -> None:
    await world.start(*DEAF)
    await world.is_ready()
    agent = threading.Thread(
        target=lambda: asyncio.run(world.again().stop("one", signal=asked, grace_s=1)), daemon=True
    )
    agent.start()
    await asyncio.to_thread(agent.join)
    world.podman.kill()
    world.podman.start()
    world.runtime = world.again()
    assert (await world.view()).state in ("stopping", "exited")
    assert (await world.reaches("exited")).exit_code == -9


async def test_a_stop_whose_signal_was_never_sent_is_finished_by_the_next_agent(world: DockerWorld) -> None:
    await world.start(*WAITS)
    await world.is_ready()
    said = await world.inspect()
    # What an agent leaves that dies between the mark and the signal.
    api = await world.runtime._call(lambda: world.runtime._actions.look.best("one"))
    assert api is not None and said["Id"] == api.container
    mark = StopMark(api.run, signal.SIGINT, boot_ms() + 3_600_000)
    world.podman.podman("rename", api.name, f"skerry-{world.owner}-one{mark.ending}")
    world.runtime = world.again()
    assert (await world.view()).state in ("stopping", "exited")
    assert (await world.reaches("exited")).exit_code == -2


async def test_a_mark_of_an_earlier_run_means_nothing(world: DockerWorld) -> None:
    await world.start(*WAITS)
    mark = StopMark(run_of("another", "run"), signal.SIGTERM, 1)
    world.podman.podman("rename", f"skerry-{world.owner}-one", f"skerry-{world.owner}-one{mark.ending}")
    world.runtime = world.again()
    assert (await world.view()).state == "running"
    await world.runtime.stop("one", signal="SIGTERM", grace_s=30)
    assert (await world.reaches("exited")).exit_code == -15


async def test_changes_are_told_and_nothing_is_asked_in_between(world: DockerWorld) -> None:
    changes = 0
    told = asyncio.Event()

    def on_change() -> None:
        nonlocal changes
        changes += 1
        told.set()

    watching = asyncio.create_task(world.runtime.watch(on_change))
    await asyncio.wait_for(told.wait(), 30)
    await world.start(*WAITS)
    before = await world.reaches("running")

    async def is_quiet() -> bool:
        # The events of the start come in their own time.
        seen = changes
        await asyncio.sleep(0.3)
        await world.runtime.instances()
        return seen == changes

    await eventually(is_quiet, what="silence")
    world.podman.pause()
    assert await asyncio.wait_for(world.runtime.instances(), 1) == {"one": before}
    world.podman.resume()
    seen = changes
    os.kill(before.pid, signal.SIGKILL)

    async def is_told() -> bool:
        return changes > seen

    await eventually(is_told, what="the event")
    # Sooner than what is kept grows old by itself.
    await asyncio.wait_for(world.reaches("exited"), 15)
    await end(watching)


async def test_watching_survives_a_restart_of_the_engine(world: DockerWorld) -> None:
    told = asyncio.Event()
    watching = asyncio.create_task(world.runtime.watch(told.set))
    await asyncio.wait_for(told.wait(), 30)
    told.clear()
    world.podman.kill()
    await asyncio.wait_for(told.wait(), 30)
    with pytest.raises(Unavailable):
        await world.runtime.instances()
    told.clear()
    world.podman.start()
    await asyncio.wait_for(told.wait(), 30)
    await world.start(*WAITS)
    pid = (await world.view()).pid
    os.kill(pid, signal.SIGKILL)
    await world.reaches("exited")
    await end(watching)


async def end(watching: asyncio.Task[None]) -> None:
    """Cancel a watch and see that it ends at once and leaves no thread."""
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(watching, 1)

    async def has_no_reader() -> bool:
        return all(thread.name != "skerry-engine-events" for thread in threading.enumerate())

    await eventually(has_no_reader, what="the end of the reader")
