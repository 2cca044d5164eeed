"""What a host measures is kept within bounds, on disk after a minute, and told in batches that never change."""

from __future__ import annotations

import random

import pytest

from skerry.agent.recording import Recorder
from skerry.kit.errors import Unavailable
from skerry.ports.telemetry_buffer import TelemetryBuffer
from skerry.telemetry.blocks import Block, decode_block
from skerry.telemetry.naming import clean_series
from skerry.telemetry.windows import Counter, SeriesKey, WindowValue, gauge_of
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer

LEVEL = clean_series("level", (), "gauge")
CALLS = clean_series("calls", (), "counter")


class World:
    """A host at simulated time; `told` is what its batches said, each as often as it was handed over."""

    def __init__(self, buffer: TelemetryBuffer | None = None, *, most_bytes: int = 1 << 20) -> None:
        self.clock = SimulatedClock()
        self.buffer = buffer or MemoryTelemetryBuffer()
        self.recorder = Recorder(self.buffer, self.clock.now, most_bytes=most_bytes)
        self.told: list[Block] = []

    def measure(self, minutes: int, values: dict[SeriesKey, WindowValue] | None = None) -> None:
        for _ in range(minutes):
            self.recorder.record(values or {LEVEL: gauge_of(5.0), CALLS: Counter(1, 3.0)})
            self.clock.advance(60)
            self.recorder.flush()

    def tell(self) -> int:
        """Take all batches and return how many samples they have."""
        samples = 0
        while (batch := self.recorder.next_batch()) is not None:
            self.told.append(decode_block(batch.block))
            samples += self.told[-1].samples
            self.recorder.note_taken(batch.number)
        return samples


def test_minutes_of_an_hour_become_one_block_and_every_sample_is_told_once() -> None:
    world = World()
    world.measure(130)
    assert len(world.buffer.kept()) < 20
    assert world.tell() == 260
    assert world.tell() == 0
    assert world.recorder.losses().dropped == {}


@pytest.mark.rule("TELEMETRY-1")
def test_a_batch_stays_the_same_until_the_hub_has_it_whatever_happens_meanwhile() -> None:
    world = World(most_bytes=3000)
    world.measure(5)
    first = world.recorder.next_batch()
    assert first is not None
    world.measure(300)
    again = World(world.buffer).recorder.next_batch()
    assert again is not None
    assert (again.number, again.block, again.stream) == (first.number, first.block, first.stream)
    world.recorder.note_taken(first.number)
    second = world.recorder.next_batch()
    assert second is not None
    assert second.number == first.number + 1


def test_what_matters_most_is_told_first() -> None:
    world = World()
    world.measure(3)
    world.recorder.record({CALLS: Counter(1, 1.0)}, "quality")
    world.clock.advance(60)
    world.recorder.flush()
    world.tell()
    assert [block.series.keys() for block in world.told] == [{CALLS}, {LEVEL, CALLS}]


@pytest.mark.rule("TELEMETRY-2")
@pytest.mark.rule("TELEMETRY-4")
def test_a_full_buffer_coarsens_then_drops_and_every_sample_is_told_or_counted_as_dropped() -> None:
    world, chance = World(most_bytes=12_000), random.Random(3)
    recorded = 0
    for _ in range(60 * 30):
        keys = [clean_series(f"level_{number}", (), "gauge") for number in range(5)]
        world.measure(1, {key: gauge_of(chance.random()) for key in keys})
        recorded += 5
    kept = world.buffer.kept()
    assert sum(one.size_bytes for one in kept) <= 12_000
    assert 3600 in {one.resolution_s for one in kept}
    dropped = sum(world.recorder.losses().dropped.values())
    assert world.tell() + dropped == recorded


@pytest.mark.rule("TELEMETRY-2")
def test_what_was_dropped_stays_counted_after_a_restart_and_goes_with_every_batch() -> None:
    world = World(most_bytes=600)
    world.measure(60 * 20)
    dropped = world.recorder.losses().dropped
    assert dropped["metrics"] > 0
    restarted = World(world.buffer, most_bytes=600)
    batch = restarted.recorder.next_batch()
    assert batch is not None
    assert batch.losses.dropped == dropped


@pytest.mark.rule("TELEMETRY-6")
def test_series_beyond_the_bound_are_refused_counted_and_named_until_others_fall_silent() -> None:
    world = World()
    bomb = {
        clean_series("requests", [("user", str(number))], "counter"): Counter(1, 1.0)
        for number in range(10_000)
    }
    world.measure(1, {**bomb})
    losses = world.recorder.losses()
    assert (losses.refused, losses.worst) == (8000, "requests")
    assert world.tell() == 2000
    world.measure(1, {LEVEL: gauge_of(1.0)})
    assert world.recorder.losses().refused == 8001
    world.clock.advance(2 * 3600)
    world.recorder.flush()
    world.measure(1, {LEVEL: gauge_of(1.0)})
    assert world.tell() == 1


def test_a_full_disk_loses_nothing_that_was_measured_before_it_has_room_again() -> None:
    buffer = MemoryTelemetryBuffer()
    world = World(buffer)
    buffer.full = True
    world.recorder.record({CALLS: Counter(1, 2.0)})
    world.clock.advance(60)
    with pytest.raises(Unavailable):
        world.recorder.flush()
    buffer.full = False
    world.measure(1)
    assert world.tell() == 3


def test_a_block_that_cannot_be_read_is_dropped_and_counted_and_holds_nothing_up() -> None:
    world = World()
    world.measure(2)
    (first, *_) = world.buffer.blocks([one.id for one in world.buffer.kept()])
    damaged = first.block.__class__(
        priority="metrics", begin=first.block.begin, resolution_s=60, samples=2, content=b"\x01nothing"
    )
    world.buffer.change([damaged], [first.id])
    assert world.tell() == 2
    assert world.recorder.losses().dropped == {"metrics": 2}
