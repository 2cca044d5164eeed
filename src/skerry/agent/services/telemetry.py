"""Measures the host and what runs on it, keeps that, and hands it up when there is a link to spare.

Rules: nothing here keeps the reconcile loop or a report waiting: reading, packing and writing are done in threads, and
a batch goes up only when nothing else waits and the link's budget is not used up. After an outage batches go up at
random intervals, so that a fleet that comes back does not come all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from skerry.agent.live_models import run_of
from skerry.agent.loops.metrics import Measured
from skerry.agent.pushing import Pushing, Source
from skerry.agent.recording import Recorder
from skerry.agent.services.host_service import NOTHING, Given, HostService, Turn
from skerry.kit.errors import SkerryError, as_failure
from skerry.ports.clock import Clock
from skerry.ports.host_readings import HostReadings, Reading, Usage
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component
from skerry.spec.telemetry import TelemetryBatch
from skerry.telemetry.naming import clean_series
from skerry.telemetry.scraping import Scraper
from skerry.telemetry.windows import Counter, CounterReader, Kind, SeriesKey, WindowValue, gauge_of

_log = structlog.get_logger()

SAMPLE_EVERY_S = 10.0
TELL_EVERY_S = 600.0
FIRST_TELL_S = (5.0, 15.0)
BETWEEN_BATCHES_S = (2.0, 10.0)
MAX_SCRAPERS = 256


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """The way up as telemetry needs it.

    `tell` hands up a batch and says whether it was taken; `failing` is the code of the error that exchanges end with;
    `held` says why so many bytes may not be sent now, and is empty when they may.
    """

    tell: Callable[[TelemetryBatch], Awaitable[bool]]
    failing: Callable[[], str]
    held: Callable[[int], str]


class Telemetry(HostService):
    """The service. `page` may be called from any thread, all else belongs to the event loop."""

    name = "telemetry"

    def __init__(self, recorder: Recorder, readings: HostReadings, clock: Clock, uplink: Uplink) -> None:
        super().__init__()
        self._recorder = recorder
        self._readings = readings
        self._clock = clock
        self._uplink = uplink
        self._instances: Mapping[str, InstanceView] = {}
        self._runs: dict[str, str] = {}
        self._counters = CounterReader()
        self._scrapers: dict[Measured, Scraper] = {}
        self._failing = ""
        self.pushing: Pushing | None = None
        self._held_bytes = 0
        self.clock_offset_s: Callable[[], float] = lambda: 0.0
        self.release_named: Callable[[str], str] = lambda digest: digest

    async def follow(self, turn: Turn) -> None:
        """Measure what runs now, and count what began again."""
        if self.pushing is not None:
            await self.pushing.open()
        self._instances = turn.instances
        running = {key: run_of(view) for key, view in turn.instances.items() if view.state == "running"}
        begun = [key for key, run in running.items() if self._runs.get(key, run) != run]
        self._runs = {key: running.get(key) or self._runs.get(key, "") for key in turn.instances}
        if begun:
            self._recorder.record(
                {self._key("restarts", turn.instances[key], "counter"): Counter(1, 1.0) for key in begun}
            )

    def page(self, measured: Measured, content: bytes) -> None:
        """Count what a page of an application's endpoint says.

        Raises:
            Rejected: the page is malformed (`metrics.*`).
        """
        if not measured.endpoint.keep:
            return
        scraper = self._scrapers.get(measured)
        if scraper is None:
            where = {
                "app": measured.application,
                "component": measured.component,
                "release": measured.release,
            }
            scraper = Scraper(measured.endpoint.keep, where, most=measured.endpoint.max_series)
            while len(self._scrapers) >= MAX_SCRAPERS:
                del self._scrapers[next(iter(self._scrapers))]
            self._scrapers[measured] = scraper
        before = scraper.refused
        self._recorder.record(scraper.read(content))
        if scraper.refused > before:
            self._recorder.refuse(scraper.refused - before, scraper.worst)

    def give(self, application: str, fact: ReleaseFact, component: Component) -> Given:
        """Return where a component can push what it measures; one in a container has no way to the host's address."""
        if self.pushing is None or component.image is not None:
            return NOTHING
        return self.pushing.give(Source(application, component.name, fact.name))

    async def sample(self) -> None:
        """Look at the host and what runs on it once, and store what has ended.

        Raises:
            SkerryError: what was measured cannot be stored now; it is kept in memory for a while.
        """
        running = {key: view for key, view in self._instances.items() if view.state == "running" and view.pid}
        processes = {key: view.pid for key, view in running.items()}
        readings, usage = await asyncio.to_thread(
            lambda: (self._readings.host(), self._readings.usage(processes))
        )
        offset = Reading("skerry_host_clock_offset_seconds", self.clock_offset_s())
        self._recorder.record(self._values([*readings, offset], running, usage))
        await asyncio.to_thread(self._recorder.flush)

    async def tell(self) -> bool:
        """Hand up the next batch if the link may carry it now; tell whether there may be more.

        Raises:
            SkerryError: what went wrong; the batch is kept.
        """
        if self._uplink.failing():
            return False
        batch = await asyncio.to_thread(self._recorder.next_batch)
        self._held_bytes = 0
        if batch is None:
            return False
        if self._uplink.held(len(batch.block)):
            self._held_bytes = len(batch.block)
            return False
        if not await self._uplink.tell(batch):
            return False
        await asyncio.to_thread(self._recorder.note_taken, batch.number)
        return True

    def holds_back(self, size: int) -> str:
        """Return why something else of so many bytes may not go up now; empty when it may.

        What telemetry waits for room for goes first.
        """
        return self._uplink.held(size + self._held_bytes)

    async def run_forever(self) -> None:
        """Measure and hand up, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample_forever())
            group.create_task(self._tell_forever())

    async def close(self) -> None:
        """Store what is in memory."""
        if self.pushing is not None:
            await self.pushing.close()
        with contextlib.suppress(SkerryError):
            await asyncio.to_thread(self._recorder.flush, everything=True)
        self._recorder.close()

    async def _sample_forever(self) -> None:
        while True:
            await self._try("telemetry.unmeasured", self.sample)
            await self._clock.sleep(SAMPLE_EVERY_S)

    async def _tell_forever(self) -> None:
        await self._clock.sleep(random.uniform(*FIRST_TELL_S))  # noqa: S311 (guards nothing)
        while True:
            while await self._try("telemetry.untold", self.tell):
                await self._clock.sleep(random.uniform(*BETWEEN_BATCHES_S))  # noqa: S311 (guards nothing)
            # From when this agent began, and not quite as often: so a fleet's hosts come apart.
            await self._clock.sleep(TELL_EVERY_S * random.uniform(0.9, 1.1))  # noqa: S311 (guards nothing)

    async def _try(self, event: str, call: Callable[[], Awaitable[bool | None]]) -> bool:
        try:
            found = await call()
        except Exception as caught:
            error = as_failure(caught)
            if self._failing != error.code:
                _log.warning(event, code=error.code, reason=str(error)[:200])
            self._failing = error.code
            return False
        self._failing = ""
        return bool(found)

    def _values(
        self, readings: list[Reading], running: Mapping[str, InstanceView], usage: Mapping[str, Usage]
    ) -> dict[SeriesKey, WindowValue]:
        found: dict[SeriesKey, WindowValue] = {}
        counters: dict[SeriesKey, float] = {}
        for one in readings:
            key = clean_series(one.name, one.labels.items(), one.kind)
            if one.kind == "counter":
                counters[key] = one.value
            else:
                found[key] = gauge_of(one.value)
        for instance, used in usage.items():
            found[self._key("memory_bytes", running[instance], "gauge")] = gauge_of(used.memory_bytes)
            counters[self._key("cpu_seconds", running[instance], "counter")] = used.cpu_s
        for key, added in self._counters.added(counters).items():
            found[key] = Counter(1, added)
        return found

    def _key(self, name: str, view: InstanceView, kind: Kind) -> SeriesKey:
        labels = {
            "app": view.labels.get("application", ""),
            "component": view.labels.get("component", ""),
            "release": self.release_named(view.labels.get("release", "")),
        }
        return clean_series(f"skerry_component_{name}", labels.items(), kind)
