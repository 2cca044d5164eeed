"""The metrics loop: asks applications for their metrics, each on its own beat, and counts what happened in between.

Rules: one question to a component at a time, bounded in time and size, read in a thread; nothing here keeps the
reconcile loop waiting. What is measured belongs to the release that the instance served. A new run, or new models that
a run took, begin anew: what was counted before is nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import msgspec
import structlog

from skerry.agent.measurements import Measurements
from skerry.kit.errors import SkerryError, as_failure
from skerry.kit.quantities import parse_duration
from skerry.ports.clock import Clock
from skerry.ports.metrics_source import MetricsSource
from skerry.spec.application import MetricsEndpoint
from skerry.telemetry.collecting import Look, measure, take_look, wanted_names
from skerry.telemetry.exposition import MAX_BYTES, parse_exposition
from skerry.telemetry.keeping import Series

_log = structlog.get_logger()

LOCAL = "127.0.0.1"
TIMEOUT_S = 10.0
FIRST_TRIES_S = 1.0
FLUSH_EVERY_S = 20.0
READERS = 2


class Measured(msgspec.Struct, frozen=True):
    """One life of an instance that is to be measured: which run it is, what it serves, and where it tells."""

    run: str
    application: str
    release: str
    component: str
    port: int
    endpoint: MetricsEndpoint


class MetricsLoop:
    """Measures the instances it is given."""

    def __init__(self, source: MetricsSource, measurements: Measurements, clock: Clock) -> None:
        self._source = source
        self._measurements = measurements
        self._clock = clock
        self._tasks: dict[str, tuple[Measured, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._readers = asyncio.Semaphore(READERS)
        self._failing = ""
        self.on_page: Callable[[Measured, bytes], None] = lambda _measured, _page: None
        """Called in a thread with each page of an endpoint that was read."""

    def follow(self, instances: Mapping[str, Measured]) -> None:
        """Measure these instances and no others."""
        for key, (measured, task) in list(self._tasks.items()):
            if instances.get(key) != measured:
                del self._tasks[key]
                task.cancel()
        for key, measured in instances.items():
            if key not in self._tasks:
                task = asyncio.create_task(self._measure_forever(measured))
                self._tasks[key] = (measured, task)
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def run_forever(self) -> None:
        """Store what has been measured, for ever."""
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            try:
                await asyncio.to_thread(self._measurements.flush)
            except Exception as caught:
                error = as_failure(caught)
                if self._failing != error.code:
                    _log.error("metrics.failing", code=error.code, reason=str(error))
                self._failing = error.code
            else:
                self._failing = ""

    async def close(self) -> None:
        """Stop measuring and store the rest."""
        self.follow({})
        await asyncio.gather(*self._ending, return_exceptions=True)
        with contextlib.suppress(SkerryError):
            await asyncio.to_thread(self._measurements.flush, everything=True)

    async def _measure_forever(self, measured: Measured) -> None:
        interval_s = parse_duration(measured.endpoint.interval)
        names = wanted_names(measured.endpoint)
        before: Look | None = None
        failing = ""
        while True:
            try:
                look = await self._look(measured, names, timeout_s=min(interval_s, TIMEOUT_S))
                for metric, value in measure(measured.endpoint, before, look).items():
                    series = Series(measured.application, measured.release, measured.component, metric)
                    self._measurements.add(series, value)
                before = look
            except Exception as caught:
                error = as_failure(caught)
                # One that has only begun is not there yet; that is no failure.
                if failing != error.code and before is not None:
                    _log.warning(
                        "metrics.unread", application=measured.application, component=measured.component,
                        code=error.code, reason=str(error)[:200],
                    )  # fmt: skip
                    failing = error.code
            else:
                failing = ""
            await self._clock.sleep(interval_s if before else min(FIRST_TRIES_S, interval_s))

    async def _look(self, measured: Measured, names: frozenset[str], *, timeout_s: float) -> Look:
        content = await self._source.fetch(
            LOCAL, measured.port, measured.endpoint.path, timeout_s=timeout_s, max_bytes=MAX_BYTES
        )
        async with self._readers:
            return await asyncio.to_thread(self._read, measured, content, names)

    def _read(self, measured: Measured, content: bytes, names: frozenset[str]) -> Look:
        self.on_page(measured, content)
        return take_look(measured.endpoint, parse_exposition(content, names))
