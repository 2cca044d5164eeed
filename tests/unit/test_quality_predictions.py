"""Predictions and labels on a host: counted once each, in the time of the prediction, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.adapters.otlp_door import OtlpDoor
from skerry.adapters.sqlite_predictions import SqlitePredictions
from skerry.agent import predicting
from skerry.agent.drifting import Drifting
from skerry.agent.predicting import Predicting, Running
from skerry.agent.pushing import Pushing, Source
from skerry.agent.recording import Recorder
from skerry.kit.errors import Rejected
from skerry.sdk import Predictions
from skerry.spec.quality import OTHER, Reference, ReferenceDistribution
from skerry.telemetry.blocks import decode_block
from skerry.telemetry.quality import (
    CALIBRATION,
    CLASSES,
    LABELLED,
    PREDICTIONS,
    VALUES,
    ClassRoom,
    Quantities,
    calibration_error,
    right_share,
)
from skerry.telemetry.windows import Counter, Distribution, SeriesKey, WindowValue, merge_two
from skerry.testing.clock import SimulatedClock
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.memory_telemetry import MemoryTelemetryBuffer

SOURCE = Source("reader", "main", "reader@1.0.0")
REFERENCE = Reference(features={"width": ReferenceDistribution(edges=(1.0,), counts=(5, 5))})
DAY_S = 86_400


class World:
    """A host whose components all mount the model `ocr`."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.folder = folder
        self.recorder = Recorder(MemoryTelemetryBuffer(), self.clock.now)
        self.counted: list[Quantities] = []
        self.open()

    def open(self) -> None:
        """Start the agent's part, over what is on the disk."""
        self.store = SqlitePredictions.open(self.folder / "predictions.db")
        self.predicting = Predicting(self.store, self.recorder, self.clock.now, self.counted.append)
        self.predicting.running = {SOURCE: Running("reader@1.0.0", {"ocr": "int8"}, {"ocr": REFERENCE})}

    def restart(self) -> None:
        self.store.close()
        self.open()

    def say(
        self, *predictions: dict[str, Any], batch: str = "", labels: dict[str, str] | None = None
    ) -> None:
        found = [{"id": key, "truth": truth} for key, truth in (labels or {}).items()]
        body = {"batch": batch, "predictions": list(predictions), "labels": found}
        self.predicting.take(SOURCE, msgspec.json.encode(body))

    def minutes(self, name: str) -> dict[int, list[tuple[dict[str, str], WindowValue]]]:
        """Return what was stored of a series, by minute, without where it comes from."""
        self.recorder.flush(everything=True)
        merged: dict[tuple[SeriesKey, int], WindowValue] = {}
        while (batch := self.recorder.next_batch()) is not None:
            self.recorder.note_taken(batch.number)
            for key, windows in decode_block(batch.block).series.items():
                for begin, value in windows.items():
                    before = merged.get((key, begin))
                    merged[key, begin] = value if before is None else merge_two(before, value)
        found: dict[int, list[tuple[dict[str, str], WindowValue]]] = {}
        for (key, begin), value in sorted(merged.items(), key=lambda item: item[0]):
            if key.name == name:
                labels = {
                    k: v
                    for k, v in key.labels
                    if k in ("class", "truth", "right", "bin", "feature", "release")
                }
                found.setdefault(begin, []).append((labels, value))
        return found

    @property
    def minute(self) -> int:
        return int(self.clock.now().timestamp()) // 60 * 60


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def said(key: str, label: str = "ok", score: float = 0.75, **features: float | str) -> dict[str, Any]:
    return {"id": key, "label": label, "score": score, "features": features}


def total(found: dict[int, list[tuple[dict[str, str], WindowValue]]]) -> int:
    return sum(value.count for of in found.values() for _, value in of)


def test_a_prediction_is_counted_with_its_class_its_score_and_its_features(world: World) -> None:
    world.say(said("1", width=12.5, line="north"), said("2", "bad", 0.5, width=3.0))
    (quantities,) = world.counted
    (values,) = quantities.values()
    assert {key.name for key in values} == {PREDICTIONS, VALUES, CLASSES}
    (one,) = [key for key in values if key.name == PREDICTIONS]
    where = {
        "app": "reader",
        "component": "main",
        "release": "reader@1.0.0",
        "model": "ocr",
        "variant": "int8",
    }
    assert dict(one.labels) == where
    assert values[one] == Counter(2, 2.0)
    by_feature = {dict(key.labels)["feature"]: value for key, value in values.items() if key.name == VALUES}
    assert {name: value.count for name, value in by_feature.items()} == {"width": 2, "score": 2}
    assert isinstance(by_feature["width"], Distribution)
    classes = {
        (dict(key.labels)["feature"], dict(key.labels)["class"]): value.count
        for key, value in values.items()
        if key.name == CLASSES
    }
    assert classes == {("class", "ok"): 1, ("class", "bad"): 1, ("line", "north"): 1}


@pytest.mark.rule("QUALITY-3")
def test_a_label_that_comes_days_later_counts_in_the_minute_of_its_prediction(world: World) -> None:
    made = world.minute
    world.say(said("1"), said("2", "bad"))
    world.clock.advance(3 * DAY_S)
    # Another release runs by then.
    world.predicting.running = {SOURCE: Running("reader@2.0.0", {"ocr": "fp16"})}
    world.say(said("3"), labels={"1": "ok", "2": "ok", "nobody": "ok"})
    found = world.minutes(LABELLED)
    one = {"release": "reader@1.0.0"}
    assert found == {
        made: [
            ({**one, "class": "bad", "right": "no", "truth": "ok"}, Counter(1, 1.0)),
            ({**one, "class": "ok", "right": "yes", "truth": "ok"}, Counter(1, 1.0)),
        ]
    }


@pytest.mark.rule("QUALITY-3")
def test_a_label_may_come_before_its_prediction_and_waits_over_a_restart(world: World) -> None:
    world.say(labels={"later": "bad"})
    assert not world.minutes(LABELLED)
    world.clock.advance(600)
    world.restart()
    made = world.minute
    world.say(said("later", "ok", 0.85))
    assert list(world.minutes(LABELLED)) == [made]


def test_calibration_keeps_the_sum_of_scores_of_each_tenth(world: World) -> None:
    world.say(said("1", score=0.95), said("2", score=0.91), said("3", score=1.0), said("4", score=7.0))
    world.say(labels={"1": "ok", "2": "bad", "3": "ok", "4": "ok"})
    (found,) = world.minutes(CALIBRATION).values()
    assert [(of["bin"], of["right"], value) for of, value in found] == [
        ("9", "no", Counter(1, 0.91)),
        ("9", "yes", Counter(2, 1.95)),
    ]
    assert calibration_error([]) is None
    assert calibration_error([("9", True, 2, 1.95), ("9", False, 1, 0.91)]) == pytest.approx(0.86 / 3)
    assert right_share([(True, 3), (False, 1)]) == 0.75
    assert right_share([]) is None


@pytest.mark.rule("QUALITY-1")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=8,
    deadline=None,
)
@given(order=st.permutations([0, 1, 2, 0, 1, 2]), restarts=st.sets(st.integers(0, 5), max_size=2))
def test_whatever_is_sent_again_counts_once(
    order: list[int], restarts: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    bodies: list[tuple[str, list[dict[str, Any]], dict[str, str]]] = [
        ("a", [said("1"), said("2")], {"1": "ok"}),
        ("b", [said("3"), {"label": "ok"}], {"2": "bad", "1": "bad"}),
        ("", [said("4")], {"3": "ok", "4": "bad"}),
    ]
    for step, place in enumerate(order):
        batch, predictions, labels = bodies[place]
        world.say(*predictions, batch=batch, labels=labels)
        if step in restarts:
            world.restart()
    assert total(world.minutes(PREDICTIONS)) == 5
    assert world.store.accept("", "reader", predictions=[], labels={"1": "x", "4": "x"}, at=0).joined == []
    world.store.close()


@pytest.mark.rule("QUALITY-1")
def test_of_several_labels_the_first_one_counts(world: World) -> None:
    world.say(said("1"))
    world.say(labels={"1": "ok"})
    world.say(labels={"1": "bad"})
    world.restart()
    world.say(labels={"1": "bad"})
    ((found,),) = world.minutes(LABELLED).values()
    assert (found[0]["truth"], found[1].count) == ("ok", 1)


def test_ids_of_one_application_are_not_those_of_another(world: World) -> None:
    world.say(said("1"))
    other = Source("sorter", "main", "sorter@1.0.0")
    world.counted.clear()
    body = {"predictions": [said("1")], "labels": [{"id": "1", "truth": "x"}]}
    world.predicting.take(other, msgspec.json.encode(body))
    (labelled,) = [
        dict(key.labels)
        for quantities in world.counted
        for of in quantities.values()
        for key in of
        if key.name == LABELLED
    ]
    assert labelled["app"] == "sorter"


@pytest.mark.rule("QUALITY-5")
def test_predictions_and_labels_beyond_the_bound_go_the_oldest_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "MOST_PREDICTIONS", 3)
    for number in range(5):
        world.say(said(str(number)), labels={f"unknown-{number}": "ok"})
        world.clock.advance(60)
    assert world.predicting.trim() == 2
    world.say(labels={str(number): "ok" for number in range(5)})
    assert total(world.minutes(LABELLED)) == 3
    world.clock.advance(31 * DAY_S)
    world.say(said("new"))
    assert world.predicting.trim() == 0
    world.say(labels={"new": "ok", "4": "bad"})
    assert total(world.minutes(LABELLED)) == 1


@pytest.mark.rule("QUALITY-5")
def test_features_and_classes_beyond_the_bound_are_other_or_refused(world: World) -> None:
    world.say(*(said(f"c{number}", f"class-{number}") for number in range(40)))
    world.say({"features": {f"f{number}": 1.0 for number in range(60)}})
    world.say({"features": {"score": 1.0, "class": "mine"}})
    classes = {of["class"] for found in world.minutes(CLASSES).values() for of, _ in found}
    assert len(classes) == 21
    assert OTHER in classes
    assert world.recorder.losses().refused == 29 + 2  # the reference has room for one of its own
    # Two classes that are told apart no longer are still not the same.
    world.say(labels={"c38": "class-38", "c39": "class-7"})
    right = [(of["class"], of["right"]) for found in world.minutes(LABELLED).values() for of, _ in found]
    assert sorted(right) == [(OTHER, "no"), (OTHER, "yes")]


def test_classes_of_the_reference_are_told_apart_whatever_comes_first() -> None:
    room = ClassRoom({"line": ["north"]})
    for number in range(30):
        room.class_of("line", f"strange-{number}")
    assert room.class_of("line", "north") == "north"
    assert room.class_of("line", "another") == OTHER


@pytest.mark.parametrize(
    "body",
    (
        b"",
        b"[" * 100_000,
        b'{"predictions": [{"score": 1e999}]}',
        b'{"predictions": [{"label": 7}]}',
        b'{"predictions": [{"age_s": -1}]}',
        b'{"predictions": [{"features": {"\\u001b[31m": 1}}]}',
        b'{"labels": [{"id": "", "truth": "x"}]}',
        b'{"stray": 1}',
    ),
)
def test_a_body_that_is_malformed_is_refused_whole(world: World, body: bytes) -> None:
    with pytest.raises(Rejected):
        world.predicting.take(SOURCE, body)
    assert world.counted == []


def test_a_model_that_the_component_does_not_mount_is_nobodys(world: World) -> None:
    world.predicting.running = {SOURCE: Running("reader@1.0.0", {"ocr": "int8", "find": "fp16"})}
    world.say({"model": "find"}, {"model": "\x1b[31m"}, {})
    (values,) = world.counted[0].values()
    models = [
        dict(key.labels).get("model")
        for quantities in world.counted
        for of in quantities.values()
        for key in of
    ]
    assert sorted(str(model) for model in models) == ["None", "find"]
    assert values


async def test_the_sdk_reaches_the_host_by_the_address_it_is_given(world: World) -> None:
    pushing = Pushing(OtlpDoor(), world.recorder, MemoryAgentStore(), world.clock.now)
    pushing.predicted = world.predicting.take
    await pushing.open()
    try:
        url = pushing.give(SOURCE).env["SKERRY_TELEMETRY_URL"]
        predictions = Predictions(url)
        for number in range(2500):
            predictions.record(
                f"p{number}", label="ok", score=0.9, features={"width": number, "bad name!": float("nan")}
            )
        predictions.label("p7", "ok")
        predictions.record(
            "strange", label="\x00\ud800" * 200, score=float("inf"), features={"9 lives": "yes"}
        )
        assert await asyncio.to_thread(predictions.flush, 60)
        await asyncio.to_thread(predictions.close)
        assert (predictions.sent, predictions.dropped, predictions.refused) == (2502, 0, 0)
        assert await asyncio.to_thread(_refused_by, f"{url}x") == 1
    finally:
        await pushing.close()
    assert total(world.minutes(PREDICTIONS)) == 2501


def _refused_by(url: str) -> int:
    other = Predictions(url)
    other.record("1")
    other.flush(60)
    other.close()
    return other.refused


async def test_what_a_host_saw_outlives_a_restart(world: World) -> None:
    drifting = Drifting(world.store)
    world.say(*(said(str(number), width=0.5) for number in range(300)))
    for quantities in world.counted:
        drifting.add(quantities)
    drifting.save(world.clock.now())
    world.restart()
    again = Drifting(world.store)
    (found,) = again.look(world.predicting.running, world.clock.now()).features
    assert (found.feature, found.samples, found.verdict) == ("width", 300, "drifted")
    assert found == drifting.look(world.predicting.running, world.clock.now()).features[0]
    world.clock.advance(2 * DAY_S)
    (later,) = again.look(world.predicting.running, world.clock.now()).features
    assert (later.samples, later.verdict) == (0, "few-samples")
