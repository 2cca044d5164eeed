"""Measures, when a person asks, how fast each variant that fits is on this very host.

A request is a file, `measure/<application>.request`, which `skerry agent measure` writes and the agent answers
with `measure/<application>.json`. Each variant is laid out on its own below `measure/`, run through the
component's self-test some times, and its median latency becomes a fact.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import msgspec

from skerry.agent.fetcher import Fetcher
from skerry.agent.launching import Launcher
from skerry.agent.releases import Releases
from skerry.agent.self_testing import SelfTests, TestBench
from skerry.kit.durable import write_file
from skerry.kit.editions import release_in
from skerry.kit.errors import Rejected, SkerryError, Unavailable
from skerry.matching.releases import variant_key
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.runtime import Runtime
from skerry.reconcile.judging import Verdict
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component
from skerry.spec.desired import SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.release import Release

ROUNDS = 3
FETCH_LOOK_S = 0.2
FETCH_LIMIT_S = 3600.0


class Measurement(msgspec.Struct, frozen=True):
    """One variant: its latency, or why there is none."""

    variant: str
    latency_us: int = 0
    why: str = ""


class Measurements(msgspec.Struct, frozen=True):
    """The answer to a request; `problem` when nothing could be measured at all."""

    application: str
    release: str = ""
    variants: tuple[Measurement, ...] = ()
    problem: str = ""


class MeasuringParts(msgspec.Struct, frozen=True):
    """What a measurer borrows of the agent; the fetcher is its own."""

    blobs: LocalBlobs
    fetcher: Fetcher
    runtime: Runtime
    clock: Clock
    tests: SelfTests
    launcher_for: Callable[[Releases], Launcher]


class Measurer:
    """Answers requests to measure, one after the other."""

    def __init__(self, directory: Path, parts: MeasuringParts) -> None:
        self._directory = directory
        self._parts = parts

    def asked(self) -> list[str]:
        """Return the applications somebody wants measured."""
        try:
            return sorted(path.stem for path in self._directory.glob("*.request"))
        except OSError:
            return []

    async def measure(
        self, application: str, fact: ReleaseFact | None, release: Release | None, facts: HostFacts
    ) -> None:
        """Answer a request; a failure is an answer, too."""
        answer = Measurements(application, problem=f"{application} does not run here")
        if fact is not None and release is not None:
            found = await self._variants(application, fact, release, facts)
            problem = "" if found else "no component has a self-test for a model"
            answer = Measurements(application, fact.name, tuple(found), problem)
        write_file(self._directory / f"{application}.json", msgspec.json.encode(answer))
        (self._directory / f"{application}.request").unlink(missing_ok=True)

    async def _variants(
        self, application: str, fact: ReleaseFact, release: Release, facts: HostFacts
    ) -> list[Measurement]:
        found: list[Measurement] = []
        for component in fact.components:
            for mount in component.models if component.self_test else ():
                model = release.model(mount.name, mount.version)
                names = [variant.name for variant in model.spec.variants] if model else []
                for name in names:
                    others = {
                        variant_key(mount.name, mount.version, other): "not measured now"
                        for other in names
                        if other != name
                    }
                    key = variant_key(mount.name, mount.version, name)
                    try:
                        latency = await self._one(
                            application, release_in(fact.digest), component, mount.name, others, facts
                        )
                    except SkerryError as error:
                        found.append(Measurement(key, why=error.message))
                    else:
                        found.append(Measurement(key, latency))
        return found

    async def _one(
        self,
        application: str,
        digest: str,
        component: Component,
        model: str,
        others: Mapping[str, str],
        facts: HostFacts,
    ) -> int:
        """Return the median latency of one variant in microseconds."""
        place = self._directory / "releases"
        shutil.rmtree(place, ignore_errors=True)
        releases = Releases(place, self._parts.blobs)
        releases.set_facts(facts, SitePolicy(host_network=True))
        releases.set_failed(others)
        try:
            fact = releases.fact(digest)
            if fact is None or fact.problem:
                raise Rejected("measure.no_fit", fact.problem if fact else "the release is not here")
            await self._fetch(digest, releases)
            await asyncio.to_thread(releases.prepare, digest)
            parts = self._parts
            bench = TestBench(releases, parts.launcher_for(releases), parts.runtime, parts.clock)
            latencies: list[int] = []
            for _ in range(ROUNDS):
                verdict = await bench.test(application, fact, component)
                if model in verdict.failures:
                    raise Rejected("measure.failed", verdict.failures[model])
                latencies.append(verdict.latencies_us.get(model, 0))
            if not all(latencies):
                raise Rejected("measure.no_latency", "its self-test tells no latency_ms")
            middle = round(median(latencies))
            self._parts.tests.learn(component, fact, Verdict({}, {model: middle}))
            return middle
        finally:
            shutil.rmtree(place, ignore_errors=True)

    async def _fetch(self, digest: str, releases: Releases) -> None:
        fetcher, clock = self._parts.fetcher, self._parts.clock
        deadline = clock.monotonic() + FETCH_LIMIT_S
        try:
            while files := releases.missing(digest):
                fetcher.want(digest, [(str(file.digest), file.size_bytes) for file in files])
                await clock.sleep(FETCH_LOOK_S)
                if why := fetcher.troubles.get(digest, ""):
                    raise Unavailable("measure.not_fetched", why)
                if clock.monotonic() > deadline:
                    raise Unavailable("measure.not_fetched", "its files did not arrive within an hour")
        finally:
            fetcher.forget(set())
