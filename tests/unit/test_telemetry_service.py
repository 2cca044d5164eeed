"""The agent measures its host and what runs there, and hands that up when there is a link to spare."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.proc_readings import ProcReadings
from skerry.agent.loops.metrics import Measured
from skerry.agent.recording import Recorder
from skerry.agent.services.host_service import Turn
from skerry.agent.services.telemetry import Telemetry, Uplink
from skerry.kit.errors import Unavailable
from skerry.ports.host_readings import HostReadings, Reading, Usage
from skerry.ports.runtime import InstanceView
from skerry.spec.application import MetricsEndpoint
from skerry.spec.telemetry import TelemetryBatch
from skerry.telemetry.blocks import decode_block
from skerry.telemetry.windows import Counter, Gauge, SeriesKey, WindowValue
from skerry.testing.clock import SimulatedClock, settle
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer
from skerry.testing.waiting import eventually

LABELS = {"application": "reader", "component": "main", "release": "sha256:1"}


class StatedReadings(HostReadings):
    """A machine that fares as a test says."""

    def __init__(self) -> None:
        self.sent = 100.0
        self.cpu_s = 0.0

    def host(self) -> Sequence[Reading]:
        return [Reading("load", 0.5), Reading("sent", self.sent, "counter", {"interface": "eth0"})]

    def usage(self, processes: Mapping[str, int]) -> Mapping[str, Usage]:
        return dict.fromkeys(processes, Usage(self.cpu_s, 4096))


class World:
    """A host at simulated time; `told` is what its upstream took."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.readings = StatedReadings()
        self.recorder = Recorder(MemoryTelemetryBuffer(), self.clock.now)
        self.told: list[TelemetryBatch] = []
        self.failing = ""
        self.held = ""
        self.takes = True
        self.limit: Callable[[int], str] = lambda _: ""
        uplink = Uplink(
            tell=self._tell, failing=lambda: self.failing, held=lambda size: self.held or self.limit(size)
        )
        self.service = Telemetry(self.recorder, self.readings, self.clock, uplink)
        self.service.release_named = lambda digest: {"sha256:1": "reader@1.0.0"}.get(digest, "")

    async def _tell(self, batch: TelemetryBatch) -> bool:
        if self.takes:
            self.told.append(batch)
        return self.takes

    async def minute(self, looks: int = 6) -> None:
        for _ in range(looks):
            await self.service.sample()
            self.clock.advance(60 / looks)
        await self.service.sample()

    def values(self) -> dict[SeriesKey, WindowValue]:
        """Return the newest window of each series that was told."""
        return {
            key: windows[max(windows)]
            for batch in self.told
            for key, windows in decode_block(batch.block).series.items()
        }


def running(pid: int = 7, key: str = "reader-main") -> InstanceView:
    return InstanceView(
        id=key, state="running", pid=pid, started_at=datetime(2026, 1, 1, tzinfo=UTC), labels=LABELS
    )


def turn(*instances: InstanceView) -> Turn:
    return Turn(desired=None, records={}, instances={view.id: view for view in instances})


def named(values: dict[SeriesKey, WindowValue], name: str) -> tuple[dict[str, str], WindowValue]:
    ((key, value),) = [(key, value) for key, value in values.items() if key.name == name]
    return dict(key.labels), value


async def test_a_host_and_what_runs_there_is_measured_and_told() -> None:
    world = World()
    await world.service.follow(turn(running()))
    await world.service.sample()
    world.readings.sent, world.readings.cpu_s = 400.0, 1.5
    await world.minute()
    await world.service.follow(turn(running(pid=8)))
    await world.minute(1)
    while await world.service.tell():
        pass
    values = world.values()
    where = {"app": "reader", "component": "main", "release": "reader@1.0.0"}
    load = named(values, "load")[1]
    assert isinstance(load, Gauge)
    assert (load.low, load.high, load.last) == (0.5, 0.5, 0.5)
    assert named(values, "skerry_component_restarts") == (where, Counter(1, 1.0))
    labels, memory = named(values, "skerry_component_memory_bytes")
    assert isinstance(memory, Gauge)
    assert (labels, memory.last) == (where, 4096.0)
    whole = [decode_block(batch.block) for batch in world.told]
    sent = [
        value.increase
        for block in whole
        for key, windows in block.series.items()
        for value in windows.values()
        if key.name == "sent" and isinstance(value, Counter)
    ]
    assert sum(sent) == 300.0


@pytest.mark.rule("TELEMETRY-5")
async def test_nothing_is_told_while_the_link_fails_or_its_budget_is_used_up_and_nothing_is_lost() -> None:
    world = World()
    await world.minute()
    world.failing = "link.unreachable"
    assert not await world.service.tell()
    world.failing, world.held = "", "the link's budget is used up"
    assert not await world.service.tell()
    world.held, world.takes = "", False
    assert not await world.service.tell()
    world.takes = True
    assert await world.service.tell()
    assert named(world.values(), "load")[1].count >= 1


@pytest.mark.rule("TELEMETRY-5")
async def test_a_reconcile_step_never_waits_for_the_disk() -> None:
    world = World()
    buffer = MemoryTelemetryBuffer()
    buffer.full = True
    recorder = Recorder(buffer, world.clock.now)
    service = Telemetry(recorder, world.readings, world.clock, world.service._uplink)
    await service.follow(turn(running()))
    await service.follow(turn(running(pid=9)))
    world.clock.advance(60)
    with pytest.raises(Unavailable):
        await service.sample()
    await service.follow(turn(running(pid=10)))


async def test_pages_of_applications_are_counted_where_they_are_kept(tmp_path: Path) -> None:
    world = World()
    kept = MetricsEndpoint(port="http", keep=("*",), max_series=2)
    measured = Measured("run", "reader", "reader@1.0.0", "main", 80, kept)
    passed = msgspec.structs.replace(measured, endpoint=MetricsEndpoint(port="http"))
    world.service.page(passed, b"ignored 1\n")
    world.service.page(measured, b"queue 3\n")
    world.service.page(measured, b"queue 5\nother 1\nthird 1\nfourth 1\n")
    world.clock.advance(60)
    await world.service.sample()
    assert await world.service.tell()
    labels, queue = named(world.values(), "queue")
    assert labels == {"app": "reader", "component": "main", "release": "reader@1.0.0"}
    assert queue == Gauge(2, 3.0, 5.0, 4.0, 5.0)
    assert world.told[0].losses.refused == 2


async def test_the_loops_measure_every_ten_seconds_and_tell_soon_and_then_now_and_then() -> None:
    world = World()
    service = asyncio.create_task(world.service.run_forever())

    async def told() -> bool:
        # Both loops work in threads between two sleeps: time passes when both sleep.
        if world.clock.sleepers == 2:
            world.clock.advance(30)
        await settle()
        return len(world.told) >= 2

    try:
        await eventually(told)
    finally:
        service.cancel()
        await asyncio.gather(service, return_exceptions=True)
    await world.service.close()


def test_a_machine_tells_of_processor_memory_disk_network_and_temperature(tmp_path: Path) -> None:
    machine(tmp_path, busy=100, idle=900)
    readings = ProcReadings(tmp_path, tmp_path)
    readings.host()
    machine(tmp_path, busy=150, idle=950)
    found = {(one.name, *one.labels.values()): one.value for one in readings.host()}
    assert found["skerry_host_cpu_busy",] == 0.5
    assert found["skerry_host_load1",] == 0.25
    assert found["skerry_host_memory_used_bytes",] == 600 << 10
    assert found["skerry_host_network_received_bytes", "eth0"] == 1000
    assert found["skerry_host_disk_written_bytes", "sda"] == 40 * 512
    assert found["skerry_host_temperature_celsius", "cpu"] == 48.5
    assert not any("lo" in names or "sda1" in names for names in found)


def test_what_a_component_takes_is_that_of_its_processes_or_of_its_cgroup(tmp_path: Path) -> None:
    readings = ProcReadings(tmp_path, tmp_path)
    process(tmp_path, 10, parent=1, ticks=100)
    process(tmp_path, 11, parent=10, ticks=50)
    process(tmp_path, 12, parent=1, ticks=9999)
    first = readings.usage({"one": 10})
    process(tmp_path, 10, parent=1, ticks=150)
    process(tmp_path, 13, parent=11, ticks=50)
    second = readings.usage({"one": 10, "gone": 99})
    assert (first["one"].cpu_s, second["one"].cpu_s) == (0.0, 1.0)
    assert second["one"].memory_bytes == 3 * first["one"].memory_bytes // 2
    assert "gone" not in second
    own = tmp_path / "sys/fs/cgroup/box"
    own.mkdir(parents=True)
    (tmp_path / "proc/12/cgroup").write_text("0::/box\n")
    (own / "memory.current").write_text("8192\n")
    (own / "cpu.stat").write_text("usage_usec 5000000\nuser_usec 1\n")
    assert readings.usage({"box": 12})["box"] == Usage(0.0, 8192)
    (own / "cpu.stat").write_text("usage_usec 7000000\nuser_usec 1\n")
    assert readings.usage({"box": 12})["box"] == Usage(2.0, 8192)


def test_a_machine_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    readings = ProcReadings(tmp_path / "gone", tmp_path / "gone")
    assert readings.host() == []
    assert readings.usage({"one": 10}) == {}
    assert readings.usage({}) == {}


def test_this_machine_tells_something() -> None:
    readings = ProcReadings(Path("/"))
    readings.host()
    assert any(one.name == "skerry_host_memory_used_bytes" for one in readings.host())


def machine(root: Path, *, busy: int, idle: int) -> None:
    for folder in ("proc/net", "sys/class/thermal/thermal_zone0", "sys/block/sda"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")
    (root / "proc/loadavg").write_text("0.25 0.1 0.1 1/100 4711\n")
    (root / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    disk = "8 0 sda 1 2 30 4 5 6 40 8 0 1 2\n8 1 sda1 1 2 30 4 5 6 40 8 0 1 2\n"
    (root / "proc/diskstats").write_text(f"{disk}7 0 loop0 1 2 3 4 5 6 7 8\n")
    (root / "proc/net/dev").write_text(
        "Inter-| Receive\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 5 0\n  eth0: 1000 0 0 0 0 0 0 0 2000 0\n"
    )
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("48500\n")
    (root / "sys/class/thermal/thermal_zone0/type").write_text("cpu\n")


def process(root: Path, pid: int, *, parent: int, ticks: int) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    fields = ["0"] * 40
    fields[0], fields[1], fields[11], fields[19], fields[21] = "S", str(parent), str(ticks), "500", "4"
    (folder / "stat").write_text(f"{pid} (a (strange) name) {' '.join(fields)}\n")


@pytest.mark.rule("UPLINK-3")
async def test_what_else_goes_up_leaves_room_for_the_batch_that_waits() -> None:
    world = World()
    await world.minute()
    world.held = "used up"
    assert not await world.service.tell()
    asked: list[int] = []

    def held(size: int) -> str:
        asked.append(size)
        return ""

    world.held, world.limit = "", held
    assert world.service.holds_back(10) == ""
    assert await world.service.tell()
    assert world.service.holds_back(10) == ""
    assert asked[0] == 10 + len(world.told[-1].block)
    assert asked[-1] == 10
