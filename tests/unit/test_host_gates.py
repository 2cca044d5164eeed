"""A host measures what runs, judges a release on trial beside the one before it, and tells the hub what it saw."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import msgspec
import pytest

from skerry.agent.host_gates import GatedTrial, HostGates, judge_trial
from skerry.agent.loops.metrics import Measured, MetricsLoop
from skerry.agent.loops.sync import Syncer
from skerry.agent.measurements import Measurements
from skerry.kit.errors import Unavailable
from skerry.reconcile.plan import plan_host
from skerry.reconcile.records import (
    ApplicationRecord,
    InstanceFact,
    Memory,
    ReleaseFact,
    Seen,
    StopInstance,
    Target,
    TrialMemory,
)
from skerry.rollout.gates import GatesVerdict
from skerry.spec.application import Collected, Component, MetricsEndpoint, RateMetric
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.gates import GateSpec
from skerry.spec.metrics import MetricWindow, Rate, histogram_of
from skerry.spec.report import ApplicationView, Observed, Report
from skerry.spec.telemetry import METRICS_TYPE, MetricBatch
from skerry.telemetry.keeping import Series
from skerry.testing.clock import SimulatedClock, settle
from skerry.testing.fake_runtime import FakeMetrics
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.waiting import eventually
from skerry.trust.envelope import verify_document
from skerry.trust.keys import public_key
from tests.unit.upstream import HOST, NOW, ScriptedLink, identity

ERRORS = Collected(name="errors", rate=RateMetric(bad='done_total{ok="no"}', total="done_total"))
ENDPOINT = MetricsEndpoint(port="http", interval="10s", collect=(ERRORS,))
GATE = GateSpec(metric="errors", kind="rate", max_increase="0.01", min_samples=10)


def page(ok: int, bad: int) -> bytes:
    return f'done_total{{ok="yes"}} {ok}\ndone_total{{ok="no"}} {bad}\n'.encode()


class Host:
    """The metrics of a host: an application on port 1 that a test lets count."""

    def __init__(self) -> None:
        self.clock = SimulatedClock(NOW)
        self.store = MemoryAgentStore()
        self.source = FakeMetrics()
        self.kept = Measurements(self.store, self.clock.now)
        self.loop = MetricsLoop(self.source, self.kept, self.clock)
        self.heard: list[tuple[str, str]] = []
        self.gates = HostGates(self.kept, self.store, self.clock, now=self.clock.now, note=self._note)

    def _note(self, trial: GatedTrial, verdict: GatesVerdict) -> None:
        self.heard.append((trial.release, verdict.outcome))

    def run(self, release: str, run: str = "1") -> None:
        """Let a release run on port 1."""
        self.loop.follow({"reader.main": Measured(run, "reader", release, "main", 1, ENDPOINT)})

    async def look(self, content: bytes | None) -> None:
        """Let the application tell this the next time it is asked, and wait until it has been read."""
        if content is None:
            self.source.pages.pop(1, None)
        else:
            self.source.pages[1] = content
        asked = self.source.asked

        async def read() -> bool:
            if self.source.asked == asked:
                self.clock.advance(1.0)
            return self.source.asked > asked and self.clock.sleepers > 0

        await eventually(read)

    def total(self, release: str) -> Rate:
        found = [w.value for w in self.kept.windows("reader", (release,))]
        rates = [value for value in found if isinstance(value, Rate)]
        return Rate(bad=sum(rate.bad for rate in rates), total=sum(rate.total for rate in rates))

    def measured(self, release: str, *, bad: int, total: int) -> None:
        self.kept.add(Series("reader", release, "main", "errors"), Rate(bad=bad, total=total))


def trial(*gates: GateSpec, attempt: int = 1) -> GatedTrial:
    return GatedTrial("reader", "sha256:new", "reader@2.0.0", "reader@1.0.0", attempt, gates or (GATE,))


async def test_what_is_measured_belongs_to_the_release_that_ran_and_restarts_and_silence_lose_little() -> (
    None
):
    host = Host()
    host.run("reader@1.0.0")
    for content in (None, page(1000, 50), page(1010, 51), None, None, page(1030, 52), page(3, 1)):
        await host.look(content)
    host.run("reader@2.0.0", run="2")
    for content in (page(7, 0), page(8, 9)):
        await host.look(content)
    host.run("reader@2.0.0", run="3")  # it crashed
    for content in (page(100, 100), page(101, 100)):
        await host.look(content)
    await host.loop.close()
    assert host.total("reader@1.0.0") == Rate(bad=3, total=36)
    assert host.total("reader@2.0.0") == Rate(bad=9, total=11)
    assert host.store.windows(), "what was measured is on the disk"


async def test_an_application_that_tells_nonsense_or_too_much_is_asked_on_and_harms_nothing() -> None:
    host = Host()
    host.run("reader@1.0.0")
    for content in (b"done_total{", page(1, 0), b"done_total x", b"#" * (5 << 20), b"\xff\xfe", page(5, 0)):
        await host.look(content)
    await host.loop.close()
    assert host.total("reader@1.0.0").total in (4, 5), "all of it appeared anew after the page without any"


async def test_a_release_that_is_proven_worse_fails_and_one_who_asks_again_gets_another_verdict() -> None:
    host = Host()
    host.measured("reader@1.0.0", bad=2, total=1000)
    host.clock.advance(600.0)
    host.gates.follow({"reader": trial()})
    await host.gates.step()
    assert host.gates.failures == {}
    host.measured("reader@2.0.0", bad=100, total=1000)
    await host.gates.step()
    assert list(host.gates.failures) == ["sha256:new"]
    assert "errors" in host.gates.failures["sha256:new"]
    assert [outcome for _, outcome in host.heard] == ["no_data", "fail"]
    host.clock.advance(600.0)
    host.gates.follow({"reader": trial(attempt=2)})
    assert host.gates.failures == {}, "what another attempt measured is no evidence against this one"
    await host.gates.step()
    assert host.gates.failures == {}
    again = HostGates(host.kept, host.store, host.clock, now=host.clock.now, note=lambda t, v: None)
    host.measured("reader@2.0.0", bad=100, total=1000)
    host.clock.advance(600.0)
    again.follow({"reader": trial(attempt=2)})
    await again.step()
    assert list(again.failures) == ["sha256:new"], "a new agent knows since when"
    again.follow({})
    assert again.failures == {}


def windows(release: str, values: list[Rate], *, after: int = 0) -> list[MetricWindow]:
    return [
        MetricWindow(
            application="reader",
            release=release,
            component="main",
            metric="errors",
            begin=NOW + timedelta(minutes=after + number),
            end=NOW + timedelta(minutes=after + number + 1),
            value=value,
        )
        for number, value in enumerate(values)
    ]


def test_releases_that_ran_one_after_the_other_are_compared_though_they_share_a_single_minute() -> None:
    old = windows("reader@1.0.0", [Rate(bad=1, total=500)] * 10)
    new = windows("reader@2.0.0", [Rate(bad=0, total=1), *[Rate(bad=50, total=500)] * 10], after=9)
    assert judge_trial(trial(), [*old, *new], NOW).outcome == "fail"
    assert (
        judge_trial(
            trial(), [*old, *windows("reader@2.0.0", [Rate(bad=1, total=500)] * 20, after=9)], NOW
        ).outcome
        == "pass"
    )


def test_only_what_was_measured_since_the_trial_began_counts_of_the_new_release() -> None:
    old = windows("reader@1.0.0", [Rate(bad=1, total=500)] * 10)
    new = windows("reader@2.0.0", [Rate(bad=400, total=500)] * 3)
    verdict = judge_trial(trial(), [*old, *new], NOW + timedelta(hours=1))
    assert verdict.outcome == "no_data"


def test_many_who_judge_for_themselves_need_more_evidence_each() -> None:
    old = windows("reader@1.0.0", [Rate(bad=5, total=1000)])
    new = windows("reader@2.0.0", [Rate(bad=70, total=1000)], after=1)
    alone = judge_trial(trial(), [*old, *new], NOW)
    crowd = judge_trial(msgspec.structs.replace(trial(), judges=1 << 20), [*old, *new], NOW)
    assert (alone.outcome, crowd.outcome) == ("fail", "inconclusive")


def test_a_latency_that_doubled_is_proven_by_the_buckets_of_a_histogram() -> None:
    gate = GateSpec(metric="latency", kind="quantile", quantile=0.9, max_increase="20%", min_samples=10)
    old, new = (
        MetricWindow(
            application="reader", release=release, component="main", metric="latency",
            begin=NOW + timedelta(minutes=begin), end=NOW + timedelta(minutes=begin + 1),
            value=histogram_of([latency] * 200),
        )
        for release, begin, latency in (("reader@1.0.0", 0, 0.05), ("reader@2.0.0", 5, 0.1))
    )  # fmt: skip
    assert judge_trial(trial(gate), [old, new], NOW).outcome == "fail"


@pytest.mark.rule("HOST-9")
def test_a_release_that_a_gate_refuses_is_ended_while_it_soaks_and_the_good_one_runs_again() -> None:
    component = (Component(name="main", command=("./run",)),)
    releases = {
        digest: ReleaseFact(name, digest, component, prepared=True)
        for digest, name in (("good", "reader@1.0.0"), ("new", "reader@2.0.0"))
    }
    key = releases["new"].instance_id("reader", "main")
    serving = InstanceFact("running", "reader", "main", "new", run="1", started=True, ready=True)
    record = ApplicationRecord("reader", good="good", candidate="new", phase="soaking", trials=1)
    target = {"reader": Target("reader", "reader@2.0.0", "new", soak_s=600.0)}
    memory = Memory(trials={"reader": TrialMemory("new", began=0.0, ready_since=1.0)})
    seen = Seen(instances={key: serving}, releases=releases, laid_out=frozenset(releases))
    assert plan_host(target, {"reader": record}, seen, memory, now=5.0).records["reader"].candidate == "new"
    worse = msgspec.structs.replace(seen, gates={"new": "errors: worse"})
    plan = plan_host(target, {"reader": record}, worse, memory, now=5.0)
    assert plan.records["reader"].refused["new"].reason == "errors: worse"
    assert plan.records["reader"].candidate == ""
    after = plan_host(target, plan.records, seen, plan.memory, now=5.1)
    assert StopInstance(key, "TERM", 10.0) in after.actions


class Hub:
    """A hub that takes metrics, or does not."""

    def __init__(self) -> None:
        self.takes = True
        self.error: Unavailable | None = None
        self.batches: list[MetricBatch] = []
        self.observed: list[Observed] = []
        self.link = ScriptedLink(self._answer)

    def _answer(self, request: SyncRequest, newest: Report) -> SyncAnswer:
        if request.metrics is not None:
            if self.error is not None:
                raise self.error
            batch = verify_document(request.metrics, METRICS_TYPE, MetricBatch, [public_key(HOST.public)])
            assert batch.sequence == newest.sequence
            self.batches.append(batch)
        if newest.observed is not None:
            self.observed.append(newest.observed)
        taken = newest.sequence if request.metrics is not None and self.takes else 0
        return SyncAnswer(acknowledged=newest.sequence, metrics=taken)


async def test_what_was_measured_is_told_until_the_hub_has_taken_it() -> None:
    host, hub = Host(), Hub()
    syncer = Syncer(identity(), host.store, hub.link, host.clock)
    assert not await syncer.tell_metrics(host.kept)
    assert hub.link.requests == [], "with nothing measured nothing is asked"
    host.measured("reader@1.0.0", bad=1, total=5)
    host.clock.advance(120.0)
    host.kept.flush()
    hub.takes = False
    assert not await syncer.tell_metrics(host.kept)
    hub.takes = True
    assert await syncer.tell_metrics(host.kept)
    assert not await syncer.tell_metrics(host.kept)
    first, second = hub.batches
    assert first.windows == second.windows
    assert [window.value for window in second.windows] == [Rate(bad=1, total=5)]


@pytest.mark.rule("SYNC-5")
async def test_metrics_that_fail_hold_no_change_back() -> None:
    host, hub = Host(), Hub()
    hub.error = Unavailable("hub.busy", "not now")
    syncer = Syncer(identity(), host.store, hub.link, host.clock)
    host.measured("reader@1.0.0", bad=1, total=5)
    host.clock.advance(120.0)
    host.kept.flush()
    with pytest.raises(Unavailable):
        await syncer.tell_metrics(host.kept)
    assert syncer.failing == ""
    syncer.tell(Observed(applications={"reader": ApplicationView(phase="running")}), {})
    await syncer.exchange(0.0)
    assert [seen.applications["reader"].phase for seen in hub.observed] == ["running"]


@pytest.mark.rule("SYNC-5")
async def test_metrics_wait_for_a_change_that_is_on_its_way_so_that_it_need_not_be_told_again() -> None:
    host, hub = Host(), Hub()
    answered, asked = threading.Event(), threading.Event()
    answer = hub.link.answer

    def slowly(request: SyncRequest, newest: Report) -> SyncAnswer:
        if newest.observed is not None:
            asked.set()
            assert answered.wait(30.0)
        return answer(request, newest)

    hub.link.answer = slowly
    syncer = Syncer(identity(), host.store, hub.link, host.clock)
    host.measured("reader@1.0.0", bad=1, total=5)
    host.clock.advance(120.0)
    host.kept.flush()
    syncer.tell(Observed(applications={"reader": ApplicationView(phase="running")}), {})
    flushing = asyncio.create_task(syncer.flush_forever())
    assert await asyncio.to_thread(asked.wait, 30.0)
    telling = asyncio.create_task(syncer.tell_metrics(host.kept))
    await settle()
    await asyncio.to_thread(host.kept.next_telling)  # the disk was free: what it waits for is the change
    await settle()
    assert len(hub.link.requests) == 1
    answered.set()
    assert await telling
    flushing.cancel()
    assert [newest.observed is not None for *_, newest in hub.link.reports] == [True, False]
