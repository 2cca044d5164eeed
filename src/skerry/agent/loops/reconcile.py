"""The reconcile loop: load what is desired and seen, plan, make the plan's records durable, apply its actions.

Rules: records are durable before any action that follows from them; every action may be repeated; what takes
long is a chore in the background, so that it does not keep the others from their turn; nothing here needs the
upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from skerry.agent.ahead import Ahead
from skerry.agent.chores import Chores
from skerry.agent.fetcher import Fetched, Fetcher, Priority
from skerry.agent.finding_ways import Bases
from skerry.agent.holding import Holds
from skerry.agent.launching import Launcher
from skerry.agent.live_models import LiveModels, run_of
from skerry.agent.loops.neighbours import NeighbourLoop
from skerry.agent.loops.probe import ProbeLoop
from skerry.agent.loops.sync import Syncer
from skerry.agent.measuring import Measurer
from skerry.agent.metering import Metering
from skerry.agent.preparing import Preparer
from skerry.agent.releases import Releases
from skerry.agent.seeing import (
    adopted_records,
    alive_applications,
    by_edition,
    fact_here,
    instance_facts,
    statuses_of,
    targets_of,
    urgent_releases,
    watched,
    with_progress,
    with_unstartable,
)
from skerry.agent.self_testing import SelfTests, is_self_test
from skerry.agent.services.host_service import HostServices, Turn
from skerry.agent.status_file import StatusFile
from skerry.agent.storing import Storage
from skerry.agent.volumes import Volumes
from skerry.agent.vouching import Vouching
from skerry.carrier.limiting import Limiter
from skerry.kit.editions import release_in
from skerry.kit.errors import Bug, Rejected, SkerryError, as_failure
from skerry.kit.quantities import format_size
from skerry.ports.agent_store import AgentStore
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.runtime import InstanceView, Runtime
from skerry.reconcile.plan import plan_host
from skerry.reconcile.records import (
    Action,
    ApplicationRecord,
    Discard,
    Fetch,
    FetchDocument,
    Happened,
    InstanceFact,
    Memory,
    Plan,
    Prepare,
    ReleaseFact,
    RemoveInstance,
    Seen,
    SelfTest,
    Start,
    StopInstance,
    TakeModels,
    Target,
    Wipe,
)
from skerry.reconcile.view import view_applications
from skerry.spec.application import Component
from skerry.spec.desired import DiskPolicy, SitePolicy
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed

_log = structlog.get_logger()

T = TypeVar("T")


class Parts(msgspec.Struct, frozen=True):
    """What the loop works with."""

    store: AgentStore
    blobs: LocalBlobs
    runtime: Runtime
    releases: Releases
    preparer: Preparer
    launcher: Launcher
    live: LiveModels
    tests: SelfTests
    measurer: Measurer
    volumes: Volumes
    fetcher: Fetcher
    limiter: Limiter
    holds: Holds
    probes: ProbeLoop
    syncer: Syncer
    clock: Clock
    facts: Callable[[], HostFacts]
    neighbours: NeighbourLoop
    vouching: Vouching
    metering: Metering
    services: HostServices


class Reconciler:
    """Makes the host what the desired state says."""

    def __init__(self, parts: Parts, *, host: str, site: str, data: Path) -> None:
        self._parts = parts
        self._host = host
        self._memory = Memory()
        self._records = _load(parts.store, "records", dict[str, ApplicationRecord])
        self._remembers = parts.store.load("records") is not None
        self._unstartable: dict[str, InstanceFact] = {}
        self._tries = 0
        self._wake = asyncio.Event()
        self._status = StatusFile(data / "status.json", host=host, site=site)
        self._tidied: tuple[object, ...] | None = None
        self._storage = Storage(parts.blobs, parts.releases, data)
        parts.fetcher.make_room = self._storage.make_room
        self._sizes: dict[str, int] = {}
        self._urgent: frozenset[str] = frozenset()
        self._ahead = Ahead(parts.releases, parts.fetcher, self._bases_of)
        self._preparing = Chores("prepare", parts.clock)
        self._testing = Chores("self_test", parts.clock)
        self._taking = Chores("take_models", parts.clock)
        self._measuring = Chores("measure", parts.clock)
        parts.syncer.on_desired = self._hear
        for source in (
            parts.fetcher,
            parts.probes,
            parts.volumes,
            parts.vouching,
            parts.metering.gates,
            self._preparing,
            self._testing,
            self._taking,
        ):
            source.on_change = self.wake

        parts.services.set_on_change(self.wake)
        self._preparing.on_trouble = self._tell_trouble
        parts.fetcher.on_fetched = self._tell_fetched

    def wake(self) -> None:
        """Look again at once."""
        self._wake.set()

    def _hear(self) -> None:
        """A desired state or a blob token has come."""
        self._parts.vouching.wake()
        self.wake()

    async def close(self) -> None:
        """Stop what is under way; it is begun again the next time."""
        for chores in (self._preparing, self._testing, self._taking, self._measuring):
            await chores.close()

    async def run_forever(self) -> None:
        """Reconcile at every change and every few seconds, for ever. An error is logged when it begins and ends."""
        failing = ""
        while True:
            self._wake.clear()
            wake_in_s = 5.0
            try:
                wake_in_s = await self.step()
            except Exception as caught:
                error = as_failure(caught)
                if failing != error.code:
                    cause = error.__cause__ if isinstance(error, Bug) else None
                    _log.error("reconcile.failing", code=error.code, reason=str(error), exc_info=cause)
                failing = error.code
                wake_in_s = 1.0
            else:
                if failing:
                    _log.info("reconcile.restored")
                failing = ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wake_in_s, 1.0)):
                    await self._wake.wait()

    async def step(self) -> float:
        """Reconcile once and return in how many seconds to look again at the latest."""
        parts = self._parts
        facts = parts.facts()
        desired = parts.syncer.desired
        await parts.preparer.look()
        policy = desired.policy if desired else SitePolicy()
        parts.limiter.follow(policy, facts)
        parts.holds.look()
        parts.vouching.follow(desired, self._host)
        parts.releases.set_facts(facts, policy)
        parts.releases.set_failed(parts.tests.failed)
        parts.releases.set_loaded(parts.preparer.loaded)
        instances = await self._instances()
        if not self._remembers:
            self._adopt(instances)
        targets = self._targets(instances)
        parts.metering.follow(desired, self._records, instances)
        await parts.services.follow(
            Turn(desired=desired, records=self._records, instances=instances, facts=facts)
        )
        parts.probes.watch(watched(instances, self._component, parts.live))
        seen = self._see(targets, instances)
        plan = plan_host(targets, self._records, seen, self._memory, now=parts.clock.monotonic())
        self._remember(plan)
        # Before anything is fetched: room is made at the cost of what nobody is known to need.
        if desired is not None:
            needed = {release_in(edition) for edition in self._needed()}
            self._ahead.follow(desired, self._host, needed, parts.vouching)
        self._storage.follow(self._records.values(), self._ahead.digests, policy.disk)
        failure: SkerryError | None = None
        for action in plan.actions:
            # One that fails must not keep the others from happening; the next plan sees what came of it.
            try:
                await self._apply(action)
            except Exception as error:
                failure = failure or as_failure(error)
        await self._tidy(instances, policy.disk)
        self._measure(facts)
        views = view_applications(targets, self._records, seen, self._memory, plan.why)
        views = with_progress(views, self._records, parts.fetcher.progress())
        generation = desired.generation if desired else 0
        observed = Observed(
            generation=generation,
            applications=views,
            neighbours=parts.neighbours.views(),
            ahead=self._ahead.views,
            metadata=parts.vouching.view,
            holds=parts.holds.in_force,
        )
        observed = parts.services.show(observed)
        self._status.write(parts.syncer, observed, facts)
        parts.syncer.tell(observed, facts)
        if failure is not None:
            raise failure
        return plan.wake_in_s

    # ── load ─────────────────────────────────────────────────────────────────────────────────────────

    async def _instances(self) -> dict[str, InstanceView]:
        """Return the instances the planner is to see; a self-test that nobody waits for any more is removed."""
        views = await self._parts.runtime.instances()
        if not (self._testing.under_way or self._measuring.under_way):
            for key, view in views.items():
                if is_self_test(view.labels):
                    await self._parts.runtime.remove(key)
        return {key: view for key, view in views.items() if not is_self_test(view.labels)}

    def _targets(self, instances: Mapping[str, InstanceView]) -> dict[str, Target]:
        desired = self._parts.syncer.desired
        if desired is None or self._host not in desired.hosts:
            # Nothing was desired here yet, or it was lost, or this host was removed from its site: absence is
            # no instruction, so what is good stays. To take an application away, the hub names the host without it.
            return {
                name: Target(name, "", record.good) for name, record in self._records.items() if record.good
            }
        self._urgent = urgent_releases(desired, self._host)
        parts, alive = self._parts, alive_applications(instances)
        neighbours, holds = parts.neighbours, parts.holds
        neighbours.follow(desired)
        neighbours.tell(statuses_of(desired, self._records, parts.releases.fact, alive, held=holds.why))
        targets = targets_of(desired, self._host, neighbours.duties(), alive)
        waits = parts.limiter.switch_wait()
        targets = {
            name: msgspec.structs.replace(target, switch=waits, hold=holds.why(name))
            for name, target in targets.items()
        }
        for target in targets.values():
            self._sizes[release_in(target.digest)] = desired.releases[target.release].size_bytes
            record = self._records.get(target.application)
            refusal = record.refused.get(target.digest) if record else None
            if refusal is not None and target.attempt > refusal.attempt:
                parts.tests.forgive(target.digest)
        return targets

    def _see(self, targets: Mapping[str, Target], instances: Mapping[str, InstanceView]) -> Seen:
        parts = self._parts
        digests = {target.digest for target in targets.values()}
        digests |= {d for r in self._records.values() for d in (r.good, r.previous, r.candidate)}
        digests |= {view.labels.get("release", "") for view in instances.values()}
        good = {record.good for record in self._records.values()}
        known = {
            digest: fact
            for digest in sorted(digests)
            if digest and (fact := fact_here(parts.releases, digest))
        }
        facts = with_unstartable(instance_facts(instances, parts.probes, parts.live), self._unstartable)
        fresh = {target.digest for target in targets.values()} - good
        troubles = {**self._testing.troubles, **self._preparing.troubles, **parts.fetcher.troubles}
        unvouched = parts.vouching.withheld({release_in(digest) for digest in fresh})
        parts.volumes.watch(
            {
                f"{fact.application}.{fact.component}": component
                for fact in facts.values()
                if (component := self._component(fact.release, fact.component)) is not None
            }
        )
        return Seen(
            instances=facts,
            releases=known,
            laid_out=parts.releases.laid_out(),
            troubles=by_edition(digests, troubles),
            taken=parts.live.taken,
            wiped=parts.volumes.wiped(),
            full=parts.volumes.full,
            withheld={**parts.services.withheld(fresh), **by_edition(fresh, unvouched)},
            revoked=by_edition(digests, parts.vouching.revoked()),
            gates=parts.metering.failures,
            outdated=parts.services.outdated,
        )

    def _adopt(self, instances: Mapping[str, InstanceView]) -> None:
        """Take what is on this host for good when no record was ever stored: the database was lost, they were not.

        Otherwise they would count as wanted no more and be ended, perhaps with no upstream to bring them back.
        """
        adopted = adopted_records(instances)
        self._parts.store.save({"records": msgspec.json.encode(adopted)})
        for name in adopted:
            self._parts.syncer.note("application.adopted", "it was here, and unknown", application=name)
        self._records, self._remembers = adopted, True

    # ── apply ────────────────────────────────────────────────────────────────────────────────────────

    def _remember(self, plan: Plan) -> None:
        if plan.records != self._records:
            self._parts.store.save({"records": msgspec.json.encode(plan.records)})
            self._records = dict(plan.records)
        self._memory = plan.memory

    async def _apply(self, action: Action) -> None:
        parts = self._parts
        match action:
            case Happened():
                parts.syncer.note(
                    action.kind, action.message, application=action.application, component=action.component
                )
            case FetchDocument() | Fetch():
                self._fetch(action)
            case Prepare():
                release = release_in(action.digest)
                self._preparing.want(release, lambda: parts.preparer.prepare(release))
            case SelfTest():
                self._self_test(action.digest)
            case TakeModels():
                fact = parts.releases.fact(action.digest)
                if fact is not None:
                    self._taking.want(fact.kin, lambda: parts.live.take(action.application, fact))
            case Wipe():
                parts.volumes.wipe(action.application, action.count)
                parts.syncer.note("volumes.wiped", application=action.application)
            case Start():
                await self._start(action)
            case StopInstance():
                await parts.runtime.stop(
                    action.instance, signal=f"SIG{action.signal}", grace_s=action.grace_s
                )
            case RemoveInstance():
                self._unstartable.pop(action.instance, None)
                await parts.runtime.remove(action.instance)
            case Discard():
                await asyncio.to_thread(parts.releases.discard, action.digest)

    def _tell_trouble(self, error: SkerryError) -> None:
        self._parts.syncer.note("release.trouble", f"{error.code}: {error.message}")

    def _fetch(self, action: Fetch | FetchDocument) -> None:
        parts, digest = self._parts, release_in(action.digest)
        priority = Priority.URGENT if digest in self._urgent else Priority.RELEASE
        if isinstance(action, Fetch):
            files = [(str(file.digest), file.size_bytes) for file in parts.releases.missing(digest)]
            parts.fetcher.want(digest, files, priority=priority, bases=lambda: self._bases(digest))
        elif digest in self._sizes:
            parts.fetcher.want(digest, [(digest, self._sizes[digest])], priority=priority)

    def _bases(self, digest: str) -> Bases:
        """Return what deltas to a release's files may be made from: those of the release it comes after."""
        own = (
            r.application
            for r in self._records.values()
            if digest in (release_in(r.candidate), release_in(r.good))
        )
        return self._bases_of(next(own, ""), digest)

    def _bases_of(self, application: str, digest: str) -> Bases:
        record = self._records.get(application)
        before = "" if record is None else record.good
        before = record.previous if record is not None and release_in(before) == digest else before
        return self._parts.releases.bases(digest, before)

    def _tell_fetched(self, digest: str, fetched: Fetched) -> None:
        """Note how a release came; its document alone is not worth it."""
        fact = self._parts.releases.fact(digest)
        if fact is None or (fetched.files == 1 and not fetched.by_delta):
            return
        how = f"{format_size(fetched.size_bytes)} in {fetched.files} files"
        if fetched.by_delta:
            how += f", {fetched.by_delta} by delta, in place of {format_size(fetched.full_bytes)}"
        if fetched.near_bytes:
            how += f", {format_size(fetched.near_bytes)} of it from neighbours"
        tried = {release_in(r.candidate): r.application for r in self._records.values()}
        application = tried.get(digest, "")
        self._parts.syncer.note("release.fetched", f"{fact.name}: {how}", application=application)

    def _self_test(self, digest: str) -> None:
        fact = self._parts.releases.fact(digest)
        application = next((r.application for r in self._records.values() if r.candidate == digest), "")
        if fact is not None and application:
            self._testing.want(release_in(digest), lambda: self._test(application, fact))

    async def _test(self, application: str, fact: ReleaseFact) -> None:
        before = self._parts.tests.failed
        await self._parts.tests.run(application, fact)
        for key, why in self._parts.tests.failed.items():
            if before.get(key) != why:
                self._parts.syncer.note("variant.failed", f"{key}: {why}", application=application)

    def _measure(self, facts: HostFacts) -> None:
        """Begin what was asked for at the host, one at a time; the results are there with the next facts."""
        asked = self._parts.measurer.asked()
        if not asked:
            return
        record = self._records.get(asked[0])
        fact = self._parts.releases.fact(record.good) if record else None
        release = self._parts.releases.release(record.good) if record else None
        self._measuring.want("measure", lambda: self._parts.measurer.measure(asked[0], fact, release, facts))

    async def _start(self, action: Start) -> None:
        self._unstartable.pop(action.instance, None)
        fact = self._parts.releases.fact(action.digest)
        component = self._component(action.digest, action.component)
        if fact is None or component is None:
            return
        try:
            await self._parts.runtime.start(self._parts.launcher.launch(action.application, fact, component))
        except (SkerryError, OSError) as caught:
            error = as_failure(caught)
            if error.code == "runtime.image_missing":
                self._parts.preparer.doubt()
            self._tries += 1
            self._unstartable[action.instance] = InstanceFact(
                state="exited",
                application=action.application,
                component=action.component,
                release=action.digest,
                family=fact.family,
                run=f"try-{self._tries}",
                fatal=error.message if isinstance(error, Rejected) else "",
                probe_why=error.message,
            )
        self.wake()

    def _component(self, digest: str, name: str) -> Component | None:
        fact = self._parts.releases.fact(digest) if digest else None
        return next((c for c in fact.components if c.name == name), None) if fact else None

    # ── after ────────────────────────────────────────────────────────────────────────────────────────

    async def _tidy(self, instances: Mapping[str, InstanceView], policy: DiskPolicy) -> None:
        """Forget what no application needs: downloads, troubles, images, and blobs once nothing is under way."""
        parts = self._parts
        editions = self._needed()
        needed = {release_in(edition) for edition in editions}
        parts.fetcher.forget(needed | self._ahead.digests)
        self._preparing.forget(needed)
        self._testing.forget(needed)
        facts = [fact for edition in editions if (fact := parts.releases.fact(edition))]
        families = {fact.kin for fact in facts if fact.hot}
        self._taking.forget(families)
        parts.live.forget(families, {(key, run_of(view)) for key, view in instances.items()})
        state = (needed, self._ahead.digests, policy)
        if state == self._tidied or any(record.candidate for record in self._records.values()):
            return
        self._tidied = state
        parts.launcher.forget(set(self._records))
        await parts.preparer.prune(needed)
        self._storage.tidy(parts.fetcher.uses())

    def _needed(self) -> set[str]:
        return {d for r in self._records.values() for d in (r.good, r.previous, r.candidate) if d}


def _load(store: AgentStore, key: str, kind: type[T]) -> T:
    return msgspec.json.decode(store.load(key) or b"{}", type=kind)
