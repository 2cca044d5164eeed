"""A host follows what its models answer, with no link: what drifts is an event, a gauge, and a file for people."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.sqlite_predictions import SqlitePredictions
from skerry.agent.pushing import Source
from skerry.agent.recording import Recorder
from skerry.agent.services.host_service import Turn
from skerry.agent.services.quality import DISTANCE, PSI, HostQuality
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ReleaseFact
from skerry.spec.api_quality import HostDrift
from skerry.spec.application import Application, ApplicationSpec, Component, ModelMount
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec, Model, ModelSpec, Variant
from skerry.spec.quality import Reference, ReferenceDistribution
from skerry.spec.release import Release
from skerry.spec.report import VariantChoice
from skerry.telemetry.blocks import decode_block
from skerry.telemetry.drift import reference_of_numbers
from skerry.telemetry.windows import Gauge
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer
from skerry.testing.waiting import eventually

COMPONENT = Component(name="main", models=(ModelMount(name="ocr", version="1.0"),))
REFERENCE = Reference(
    features={
        "width": reference_of_numbers([float(number % 100 + 1) for number in range(1000)]),
        "class": ReferenceDistribution(classes={"ok": 900, "bad": 100}),
    }
)
SOURCE = Source("reader", "main", "reader@1.0.0")


class World:
    """A host that runs `reader`, whose model has a reference."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.folder = folder
        self.recorder = Recorder(MemoryTelemetryBuffer(), self.clock.now)
        self.events: list[tuple[str, str, str]] = []
        self.taken = ""
        store = SqlitePredictions.open(folder / "predictions.db")
        self.file = folder / "quality.json"
        self.service = HostQuality(store, self.recorder, self.clock, now=self.clock.now, file=self.file)
        self.service.fact_of = {
            "sha256:1": fact("1.0.0", "sha256:1"),
            "sha256:2": fact("2.0.0", "sha256:2"),
        }.get
        self.service.release_of = lambda digest: release("1.0.0" if digest == "sha256:1" else "2.0.0")
        self.service.taken_by = lambda _: self.taken
        self.service.note = lambda kind, message, application: self.events.append(
            (kind, message, application)
        )

    def say(self, many: int, width: float) -> None:
        said = [
            {"label": "ok" if number % 10 else "bad", "features": {"width": width + number % 100}}
            for number in range(many)
        ]
        self.service.predicting.take(SOURCE, msgspec.json.encode({"predictions": said}))

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.events]


def fact(version: str, digest: str) -> ReleaseFact:
    choices = (VariantChoice(model="ocr", version="1.0", variant=f"int8-{version[0]}"),)
    return ReleaseFact(name=f"reader@{version}", digest=digest, components=(COMPONENT,), choices=choices)


def release(version: str) -> Release:
    files = (FileSpec(path="m.onnx", digest="sha256:" + "0" * 64, size_bytes=1),)
    variants = (Variant(name="int8-1", format="onnx", files=files),)
    return Release(
        application=Application(
            metadata=Metadata(name="reader"), spec=ApplicationSpec(version=version, components=(COMPONENT,))
        ),
        models=(
            Model(
                metadata=Metadata(name="ocr"),
                spec=ModelSpec(version="1.0", reference=REFERENCE, variants=variants),
            ),
        ),
    )


def running(digest: str = "sha256:1", family: str = "") -> Turn:
    labels = {"application": "reader", "component": "main", "release": digest, "family": family}
    view = InstanceView(
        id="reader-main", state="running", pid=7, started_at=datetime(2026, 1, 1, tzinfo=UTC), labels=labels
    )
    return Turn(desired=None, records={}, instances={view.id: view})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.rule("QUALITY-2")
async def test_a_drift_begins_and_ends_as_an_event_and_is_a_gauge_and_a_file_meanwhile(world: World) -> None:
    await world.service.follow(running())
    world.say(500, 1.0)
    await world.service.look()
    assert world.events == []
    world.say(1500, 60.0)
    found = await world.service.look()
    assert [(one.feature, one.verdict) for one in found.features] == [
        ("class", "steady"),
        ("width", "drifted"),
    ]
    await world.service.look()
    ((kind, message, application),) = world.events
    assert (kind, application) == ("quality.drifted", "reader")
    assert message.startswith("width of ocr in reader@1.0.0 has drifted: psi ")
    assert message.endswith("of 2000 samples")
    shown = msgspec.json.decode(world.file.read_bytes(), type=HostDrift)
    assert [one.feature for one in shown.features if one.verdict == "drifted"] == ["width"]
    assert sum(one.seen for one in shown.features[1].bins) == 2000
    world.recorder.flush(everything=True)
    batch = world.recorder.next_batch()
    assert batch is not None
    gauges = {
        key.name: of
        for key, of in decode_block(batch.block).series.items()
        if dict(key.labels).get("feature") == "width"
    }
    (psi,) = gauges[PSI].values()
    assert isinstance(psi, Gauge)
    assert psi.last > 0.25
    assert DISTANCE in gauges
    # A day later nothing was seen: that ends nothing. A day of what is usual does.
    world.clock.advance(2 * 86_400)
    assert [one.verdict for one in (await world.service.look()).features] == ["few-samples", "few-samples"]
    assert world.kinds() == ["quality.drifted"]
    world.say(1000, 1.0)
    await world.service.look()
    assert world.kinds() == ["quality.drifted", "quality.steady"]
    await world.service.close()


async def test_a_component_that_took_another_model_while_it_runs_counts_for_its_release(world: World) -> None:
    await world.service.follow(running(family="f"))
    assert world.service.predicting.running[SOURCE].models == {"ocr": "int8-1"}
    world.taken = "sha256:2"
    await world.service.follow(running(family="f"))
    one = world.service.predicting.running[SOURCE]
    assert (one.release, one.models) == ("reader@2.0.0", {"ocr": "int8-2"})
    await world.service.follow(running("sha256:gone"))
    assert world.service.predicting.running == {}
    world.service.give("reader", fact("1.0.0", "sha256:1"), COMPONENT)
    assert world.service.predicting.running[SOURCE].references == {"ocr": REFERENCE}
    await world.service.close()


async def test_by_itself_it_compares_and_saves_at_its_pace(world: World) -> None:
    await world.service.follow(running())
    world.say(1500, 60.0)
    task = asyncio.create_task(world.service.run_forever())

    async def written() -> bool:
        await world.clock.elapse(15)
        return world.file.exists()

    assert await eventually(written)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.kinds() == ["quality.drifted"]
    await world.service.close()
