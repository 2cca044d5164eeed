"""One runtime over processes and containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.engine import EngineFinder, Found
from skerry.agent.host_runtime import HostRuntime
from skerry.agent.preparing import Preparer
from skerry.agent.releases import Releases
from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.images import ImageParts, Images
from skerry.ports.runtime import ContainerSpec, InstanceSpec, InstanceView
from skerry.testing.clock import SimulatedClock
from skerry.testing.fake_runtime import FakeRuntime
from skerry.testing.memory import MemoryAgentStore


class AwayRuntime(FakeRuntime):
    """A runtime whose service may be away."""

    away = False

    async def instances(self) -> Mapping[str, InstanceView]:
        if self.away:
            raise Unavailable("engine.away", "it does not answer")
        return await super().instances()


class Unasked(Images):
    """Images that nobody asks for here."""

    async def loaded(self) -> AbstractSet[str]:
        raise AssertionError

    async def load(self, parts: ImageParts, blob: Callable[[str], Path]) -> None:
        raise AssertionError

    async def prune(self, keep: AbstractSet[str]) -> AbstractSet[str]:
        raise AssertionError


def spec(name: str, *, boxed: bool) -> InstanceSpec:
    container = ContainerSpec(image="sha256:1") if boxed else None
    return InstanceSpec(id=name, command=("run",), env={}, directory=Path("/"), container=container)


@pytest.fixture
def sides() -> tuple[FakeRuntime, AwayRuntime, HostRuntime]:
    clock = SimulatedClock()
    processes, containers = FakeRuntime(clock), AwayRuntime(clock)
    host = HostRuntime(processes)
    host.attach(containers)
    return processes, containers, host


async def test_what_has_an_image_runs_in_the_engine_and_everything_else_as_a_process(
    sides: tuple[FakeRuntime, AwayRuntime, HostRuntime],
) -> None:
    processes, containers, host = sides
    await host.start(spec("a", boxed=False))
    await host.start(spec("b", boxed=True))
    assert (processes.host.starts, containers.host.starts) == (["a"], ["b"])
    assert set(await host.instances()) == {"a", "b"}
    await host.signal("a", "SIGHUP")
    await host.stop("b", signal="SIGTERM", grace_s=1)
    assert processes.host.signals == [("a", "SIGHUP")]
    assert [stop[0] for stop in containers.host.stops] == ["b"]
    await host.remove("b")
    assert set(await host.instances()) == {"a"}


async def test_while_the_engine_is_away_containers_are_shown_as_they_were_and_processes_go_on(
    sides: tuple[FakeRuntime, AwayRuntime, HostRuntime],
) -> None:
    processes, containers, host = sides
    await host.start(spec("a", boxed=False))
    await host.start(spec("b", boxed=True))
    await host.instances()
    containers.away = True
    processes.crash("a", 3)
    views = await host.instances()
    assert (views["a"].state, views["b"].state) == ("exited", "running")


async def test_without_an_engine_an_image_is_refused() -> None:
    host = HostRuntime(FakeRuntime(SimulatedClock()))
    with pytest.raises(Rejected) as caught:
        await host.start(spec("b", boxed=True))
    assert caught.value.code == "runtime.cannot"


async def test_an_engine_that_was_found_once_is_a_fact_also_when_it_does_not_answer(tmp_path: Path) -> None:
    clock, store = SimulatedClock(), MemoryAgentStore()
    blobs = DirectoryBlobs(tmp_path / "blobs")

    def finder(found: Found | None) -> EngineFinder:
        host = HostRuntime(FakeRuntime(clock))
        preparer = Preparer(Releases(tmp_path / "releases", blobs), blobs, clock)
        return EngineFinder(lambda: found, host, preparer, store, clock)

    before = finder(None)
    await before.look()
    assert before.facts() == {}
    there = finder(Found("/run/engine.sock", FakeRuntime(clock), Unasked()))
    await there.look()
    assert there.facts()["engine"].value == "process"
    assert there.facts()["engine"].source == "/run/engine.sock"
    after = finder(None)
    await after.look()
    assert after.facts() == there.facts()
