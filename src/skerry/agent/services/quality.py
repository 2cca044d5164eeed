"""Follows what the models on this host answer: counts it, compares it with their references, and says what drifts.

Rules: nothing here waits for a link. What has drifted is an event when it begins and when it ends, and a gauge all the
time. Too few samples end no drift: what is not known is not fine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import structlog

from skerry.agent.drifting import Drifting, drifted, encode
from skerry.agent.predicting import Predicting, Running
from skerry.agent.pushing import Source
from skerry.agent.recording import Recorder
from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.kit.durable import write_file
from skerry.kit.errors import SkerryError, as_failure
from skerry.ports.clock import Clock
from skerry.ports.prediction_store import PredictionStore
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ReleaseFact
from skerry.spec.api_quality import DriftView, HostDrift
from skerry.spec.application import Component
from skerry.spec.release import Release
from skerry.telemetry.naming import clean_series
from skerry.telemetry.windows import SeriesKey, WindowValue, gauge_of

_log = structlog.get_logger()

LOOK_EVERY_S = 15.0
SAVE_EVERY_S = 600.0
FILE = "quality.json"
PSI, DISTANCE = "skerry_drift_psi", "skerry_drift_distance"
_Key = tuple[str, str, str, str]


class HostQuality(HostService):
    """The service; `predicting` takes what applications say."""

    name = "quality"

    def __init__(
        self,
        store: PredictionStore,
        recorder: Recorder,
        clock: Clock,
        *,
        now: Callable[[], datetime],
        file: Path,
    ) -> None:
        super().__init__()
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._now = now
        self._file = file
        self._drifting = Drifting(store)
        self._drifted: set[_Key] = set()
        self._written = b""
        self._failing = ""
        self.predicting = Predicting(store, recorder, now, self._drifting.add)
        self.fact_of: Callable[[str], ReleaseFact | None] = lambda _: None
        self.release_of: Callable[[str], Release | None] = lambda _: None
        self.taken_by: Callable[[str], str] = lambda _: ""
        self.note: Callable[[str, str, str], None] = lambda _kind, _message, _application: None

    async def follow(self, turn: Turn) -> None:
        """Know which models and references the components that run have now."""
        running: dict[Source, Running] = {}
        for view in turn.instances.values():
            if view.state == "running" and (found := self._found(view)) is not None:
                source, one = found
                running[source] = one
        self.predicting.running = running

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Know a component before it runs: its first predictions come before the next step."""
        source = Source(application, component.name, fact.name)
        self.predicting.running = {source: self._running(fact, component), **self.predicting.running}
        return NOTHING

    async def look(self) -> HostDrift:
        """Compare once, and tell what is new.

        Raises:
            Unavailable: the file cannot be written.
        """
        found = await asyncio.to_thread(self._drifting.look, self.predicting.running, self._now())
        self._recorder.record(_gauges(found), "quality")
        self._tell(found)
        content = encode(found)
        if found.features and content != self._written:
            await asyncio.to_thread(write_file, self._file, content, sync=False)
            self._written = content
        return found

    async def save(self) -> None:
        """Make durable what was seen, and forget what is old.

        Raises:
            Unavailable: the disk cannot be written.
        """
        await asyncio.to_thread(self._drifting.save, self._now())
        if gone := await asyncio.to_thread(self.predicting.trim):
            _log.info("quality.trimmed", predictions=gone)

    async def run_forever(self) -> None:
        """Compare and save, for ever."""
        passed = 0.0
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            passed += LOOK_EVERY_S
            await self._try(self.look)
            if passed >= SAVE_EVERY_S:
                passed = 0.0
                await self._try(self.save)

    async def close(self) -> None:
        """Make durable what was seen."""
        await self._try(self.save)
        self._store.close()

    async def _try(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
            self._failing = ""
        except SkerryError as caught:
            error = as_failure(caught)
            if self._failing != error.code:
                _log.warning("quality.failing", code=error.code, reason=str(error)[:200])
            self._failing = error.code

    def _found(self, view: InstanceView) -> tuple[Source, Running] | None:
        labels = view.labels
        begun = self.fact_of(labels.get("release", ""))
        taken = self.taken_by(labels.get("family", "")) if labels.get("family", "") else ""
        fact = (self.fact_of(taken) if taken else None) or begun
        component = (
            next((c for c in fact.components if c.name == labels.get("component", "")), None)
            if fact
            else None
        )
        if begun is None or fact is None or component is None:
            return None
        source = Source(labels.get("application", ""), component.name, begun.name)
        return source, self._running(fact, component)

    def _running(self, fact: ReleaseFact, component: Component) -> Running:
        release = self.release_of(fact.digest)
        variants = {(one.model, one.version): one.variant for one in fact.choices if one.kind == "model"}
        models = {one.name: variants.get((one.name, one.version), "") for one in component.models}
        references = {
            one.name: model.spec.reference
            for one in component.models
            if release is not None
            and (model := release.model(one.name, one.version)) is not None
            and model.spec.reference is not None
        }
        return Running(fact.name, models, references)

    def _tell(self, found: HostDrift) -> None:
        now = drifted(found)
        steady = {_key(one) for one in found.features if one.verdict == "steady"}
        for key in sorted(now.keys() - self._drifted):
            one = now[key]
            self.note("quality.drifted", f"{_words(one)}: {one.why}, of {one.samples} samples", one.app)
        for app, release, model, feature in sorted(self._drifted & steady):
            self.note(
                "quality.steady", f"{feature} of {model} in {release} is as in its reference again", app
            )
        there = {_key(one) for one in found.features}
        self._drifted = (self._drifted & there - steady) | set(now)


def _key(view: DriftView) -> _Key:
    return view.app, view.release, view.model, view.feature


def _words(view: DriftView) -> str:
    return f"{view.feature} of {view.model} in {view.release} has drifted"


def _gauges(found: HostDrift) -> dict[SeriesKey, WindowValue]:
    gauges: dict[SeriesKey, WindowValue] = {}
    for one in found.features:
        if one.verdict != "few-samples":
            labels = {"app": one.app, "release": one.release, "model": one.model, "feature": one.feature}
            gauges[clean_series(PSI, labels.items(), "gauge")] = gauge_of(one.psi)
            gauges[clean_series(DISTANCE, labels.items(), "gauge")] = gauge_of(one.distance)
    return gauges
