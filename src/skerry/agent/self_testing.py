"""Runs the self-tests of a laid-out release, and remembers which variants failed and how fast the others were.

A self-test is an instance of its own beside whatever runs. A variant that fails is remembered by name with the
reason, until a person asks for the release again; the next best is then chosen, fetched and tested. That a test
could not be run at all, say for want of room, says nothing about the variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from skerry.agent.launching import SELF_TEST_ROLE, Launcher
from skerry.agent.releases import Releases
from skerry.kit.errors import Rejected, Unavailable
from skerry.kit.quantities import parse_duration
from skerry.matching.releases import variant_key
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.runtime import InstanceSpec, Runtime
from skerry.reconcile.judging import GoldenAnswer, Verdict, judge_self_test
from skerry.reconcile.records import ReleaseFact
from skerry.spec.application import Component, ModelMount
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.release import Release

LOOK_EVERY_S = 0.1
OUTPUT_BYTES = 4 << 20
MAX_EXPECTED_BYTES = 16 << 20


class TestBench:
    """Runs one component's self-test on the models as they are laid out."""

    __test__ = False

    def __init__(self, releases: Releases, launcher: Launcher, runtime: Runtime, clock: Clock) -> None:
        self._releases = releases
        self._launcher = launcher
        self._runtime = runtime
        self._clock = clock

    async def test(self, application: str, fact: ReleaseFact, component: Component) -> Verdict:
        """Return the verdict on the component's models.

        Raises:
            Unavailable: the test could not be run now.
        """
        test, release = component.self_test, self._releases.release(fact.digest)
        assert test is not None
        models = [mount.name for mount in component.models]
        if release is None:
            raise Unavailable("release.missing", f"the document of {fact.name} is not here any more")
        try:
            spec = self._launcher.launch_test(application, fact, component)
            ended, output = await self._run_once(spec, parse_duration(test.timeout))
        except Rejected as error:
            return Verdict(dict.fromkeys(models, f"the self-test cannot be started: {error.message}"))
        answers, limits_ms = self._answers(fact, component, release), limits_of(component, release)
        return judge_self_test(models, answers, output, ended=ended, limits_ms=limits_ms)

    async def _run_once(self, spec: InstanceSpec, timeout_s: float) -> tuple[str, bytes]:
        """Return how the command ended, empty for well, and what it printed."""
        await self._runtime.remove(spec.id)
        try:
            await self._runtime.start(spec)
            deadline = self._clock.monotonic() + timeout_s
            while True:
                view = (await self._runtime.instances()).get(spec.id)
                if view is None or view.state in ("exited", "lost"):
                    break
                if self._clock.monotonic() >= deadline:
                    return f"no end within {timeout_s:g}s", await self._output(spec.id)
                await self._clock.sleep(LOOK_EVERY_S)
            code = view.exit_code if view is not None else None
            ended = "" if code == 0 else f"exit code {code}" if code is not None else "it was lost"
            return ended, await self._output(spec.id)
        finally:
            await self._runtime.remove(spec.id)

    async def _output(self, instance: str) -> bytes:
        return await self._runtime.logs(instance, tail_bytes=OUTPUT_BYTES)

    def _answers(
        self, fact: ReleaseFact, component: Component, release: Release
    ) -> Mapping[str, GoldenAnswer]:
        answers: dict[str, GoldenAnswer] = {}
        for mount in component.models:
            model = release.model(mount.name, mount.version)
            if model is None or model.spec.self_test is None:
                continue
            tolerance = model.spec.self_test.tolerance
            for variant in model.spec.variants:
                if variant.name in variants_of(fact, mount) and variant.tolerance is not None:
                    tolerance = variant.tolerance
            for case in model.spec.self_test.cases:
                place = self._releases.folder(fact.digest) / "expected" / mount.name / case.name
                expected = _read(place / case.expected.path)
                answers[f"{mount.name}/{case.name}"] = GoldenAnswer(expected, tolerance)
        return answers


class SelfTests:
    """What the self-tests of one host have shown. `failed` maps `variant_key` to why the variant failed."""

    def __init__(self, releases: Releases, bench: TestBench, store: AgentStore) -> None:
        self._releases = releases
        self._bench = bench
        self._store = store
        self.failed = msgspec.json.decode(store.load("failed_variants") or b"{}", type=dict[str, str])
        self.on_change: Callable[[], None] = lambda: None
        self._latencies_us = msgspec.json.decode(store.load("latencies_us") or b"{}", type=dict[str, int])

    def measured(self) -> HostFacts:
        """Return the latencies that self-tests told, as facts."""
        return {
            f"measured.{key}.latency_us": Fact(value=latency, source="self-test")
            for key, latency in sorted(self._latencies_us.items())
        }

    async def run(self, application: str, fact: ReleaseFact) -> None:
        """Run all self-tests of a release; if all pass, it counts as tested from then on.

        Raises:
            Unavailable: a test could not be run now.
        """
        failed: dict[str, str] = {}
        for component in fact.components:
            if component.self_test is not None:
                verdict = await self._bench.test(application, fact, component)
                failed.update(self.learn(component, fact, verdict))
        self.failed = {**self.failed, **failed}
        self._save()
        if not failed:
            self._releases.mark_tested(fact.digest)

    def learn(self, component: Component, fact: ReleaseFact, verdict: Verdict) -> dict[str, str]:
        """Take in the latencies of a verdict and return what failed, by `variant_key`."""
        failed: dict[str, str] = {}
        for mount in component.models:
            for variant in variants_of(fact, mount):
                key = variant_key(mount.name, mount.version, variant)
                if mount.name in verdict.failures:
                    failed[key] = verdict.failures[mount.name]
                elif mount.name in verdict.latencies_us:
                    self._latencies_us[key] = verdict.latencies_us[mount.name]
        self._save()
        return failed

    def forgive(self, digest: str) -> None:
        """Forget what failed of a release's variants, because a person asks to try it again."""
        release = self._releases.release(digest)
        models = release.models if release else ()
        prefixes = tuple(variant_key(model.metadata.name, model.spec.version, "") for model in models)
        kept = {key: why for key, why in self.failed.items() if not (prefixes and key.startswith(prefixes))}
        if kept != self.failed:
            self.failed = kept
            self._save()

    def forget(self, keys: AbstractSet[str]) -> None:
        """Forget the variants that no release here has."""
        failed = {key: why for key, why in self.failed.items() if key in keys}
        latencies = {key: latency for key, latency in self._latencies_us.items() if key in keys}
        if (failed, latencies) != (self.failed, self._latencies_us):
            self.failed, self._latencies_us = failed, latencies
            self._save()

    def _save(self) -> None:
        self.on_change()
        self._store.save(
            {
                "failed_variants": msgspec.json.encode(self.failed),
                "latencies_us": msgspec.json.encode(self._latencies_us),
            }
        )


def limits_of(component: Component, release: Release) -> Mapping[str, float]:
    """Return by model how many milliseconds an answer may take, of those that state it."""
    limits: dict[str, float] = {}
    for mount in component.models:
        model = release.model(mount.name, mount.version)
        test = model.spec.self_test if model else None
        if test is not None and test.max_latency is not None:
            limits[mount.name] = parse_duration(test.max_latency) * 1000
    return limits


def variants_of(fact: ReleaseFact, mount: ModelMount) -> list[str]:
    """Return the variant that was chosen for a mount, or nothing."""
    return [
        choice.variant
        for choice in fact.choices
        if (choice.kind, choice.model, choice.version) == ("model", mount.name, mount.version)
    ]


def is_self_test(labels: Mapping[str, str]) -> bool:
    """Tell whether an instance is a self-test, which the planner has nothing to do with."""
    return labels.get("role") == SELF_TEST_ROLE


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_EXPECTED_BYTES)
