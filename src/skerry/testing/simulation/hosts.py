"""A host of a simulation: the real planner, and a world that does what it says after as long as it takes.

The planner runs when something happened and when it asked to be woken for a reason, not every few seconds as on a
host: between two events nothing it looks at changes. What is durable on a host survives a power cut here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from random import Random
from typing import Protocol

import msgspec

from skerry.kit.digests import digest_of
from skerry.reconcile.plan import plan_host
from skerry.reconcile.records import (
    Action,
    ApplicationRecord,
    Discard,
    Fetch,
    FetchDocument,
    InstanceFact,
    Memory,
    Prepare,
    ReleaseFact,
    RemoveInstance,
    Seen,
    SelfTest,
    Start,
    StopInstance,
    Target,
)
from skerry.reconcile.view import view_applications
from skerry.rollout.facts import HostFact
from skerry.rollout.stages import stage_of
from skerry.spec.application import Component
from skerry.testing.simulation.agenda import Agenda
from skerry.testing.simulation.fleet import HostPlan

WEEK_S = 7 * 86400.0
STEP_S = 1.0
STOPPING_S = 2.0
CRASHES_AFTER_S = 2.0
OFF_S = (30.0, 240.0)
COMPONENTS = (Component(name="main", command=("run",)),)


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """The releases of a simulation, and how long the steps of an update take."""

    application: str
    new: str
    digests: Mapping[str, str]
    prepare_s: float
    self_test_s: float
    start_s: float

    @property
    def new_digest(self) -> str:
        """The digest of the release that is rolled out."""
        return self.digests[self.new]


class Place(Protocol):
    """What a host needs of its site."""

    rng: Random

    @property
    def online(self) -> bool:
        """Whether the link is up."""
        ...

    def left_bytes(self, digest: str) -> int:
        """Return what the site has yet to fetch of a release."""
        ...

    def fetch(self, host: SimulatedHost, digest: str) -> None:
        """Let the host have `fetched` once the site has the bytes."""
        ...

    def stop_fetching(self, digest: str) -> None:
        """A host does not wait for the bytes any more."""
        ...

    def target(self, host: SimulatedHost) -> tuple[Target | None, float | None]:
        """Return what the host holds as its target, and when that changes by time alone (seconds)."""
        ...

    def changed(self, host: SimulatedHost) -> None:
        """Notice that there is something to report."""
        ...

    def booted(self, host: SimulatedHost) -> None:
        """Notice that the host is back after a power cut."""
        ...

    def exposed(self, host: SimulatedHost) -> None:
        """Notice that the host starts the new release."""
        ...


class SimulatedHost:
    """One host with one application of one component."""

    def __init__(self, plan: HostPlan, steps: Steps, agenda: Agenda, place: Place, previous: str) -> None:
        self.plan = plan
        self.generation = 0
        self.up = True
        self.corrected = True
        self._steps = steps
        self._agenda = agenda
        self._place = place
        self._wake = 0
        self._doing: Action | None = None
        self._task = 0
        self._runs = 0
        self.memory = Memory()
        self.instances: dict[str, InstanceFact] = {}
        old = steps.digests.get(previous, "")
        self._documents = {old} - {""}
        self._files, self._laid_out, self._tested = (
            set(self._documents),
            set(self._documents),
            set(self._documents),
        )
        self._failed: dict[str, str] = {}
        self.records: Mapping[str, ApplicationRecord] = {}
        self.why: Mapping[str, str] = {}
        if old:
            self.records = {steps.application: ApplicationRecord(steps.application, good=old)}
            key = self._fact(old).instance_id(steps.application, COMPONENTS[0].name)
            self._launch(key, old)
            self.instances[key] = msgspec.structs.replace(self.instances[key], started=True, ready=True)
        self._await(plan.power_cuts_per_week, self._lose_power)

    # ── what others say ──────────────────────────────────────────────────────────────────────────────

    def learn(self, generation: int) -> None:
        """Take the newest desired state."""
        self.corrected = True
        if self.up and generation != self.generation:
            self.generation = generation
            self._place.changed(self)
            self.think()

    def fetched(self, digest: str) -> None:
        """The site has the bytes."""
        if isinstance(self._doing, Fetch) and self._doing.digest == digest:
            self._done(self._task)

    def resume(self) -> None:
        """The link is up again: go on with what needs it."""
        if isinstance(self._doing, FetchDocument):
            self._begin(self._doing)

    def fact(self, as_of: datetime) -> HostFact:
        """Return what a rollout needs to know of the host; whether that is of the newest state, its site says."""
        target, _ = self._place.target(self)
        targets = {target.application: target} if target else {}
        views = view_applications(targets, self.records, self._seen(), self.memory, self.why)
        view = views.get(self._steps.application)
        return HostFact(
            name=self.plan.name,
            holds_offer=False,
            running=view.release if view else "",
            candidate=view.candidate if view else "",
            refused=view.refused.get(self._steps.new_digest, "") if view else "",
            why=view.why if view else "",
            as_of=as_of,
            stage=stage_of(view, self._steps.new) if view else "",
        )

    @property
    def fetching(self) -> str:
        """The digest of the release whose bytes it waits for; empty when it does not."""
        return self._doing.digest if isinstance(self._doing, Fetch) else ""

    @property
    def runs_new(self) -> bool:
        """Whether it took the new release for good."""
        record = self.records.get(self._steps.application)
        return record is not None and record.good == self._steps.new_digest

    # ── planning ─────────────────────────────────────────────────────────────────────────────────────

    def think(self) -> None:
        """Plan, do what the plan says, and arrange to be woken."""
        if not self.up:
            return
        now = self._agenda.now_s
        target, changes_at = self._place.target(self)
        targets = {target.application: target} if target else {}
        plan = plan_host(targets, self.records, self._seen(), self.memory, now=now)
        moved = plan.records != self.records or plan.memory != self.memory
        if plan.records != self.records or plan.why != self.why:
            self._place.changed(self)
        self.records, self.memory, self.why = plan.records, plan.memory, plan.why
        slow: Action | None = None
        for action in plan.actions:
            if isinstance(action, FetchDocument | Fetch | Prepare | SelfTest):
                slow = action
            else:
                moved |= self._apply(action)
        if slow != self._doing:
            self._drop()
            self._doing = slow
            if slow is not None:
                self._begin(slow)
        self._wake += 1
        wake_at = now + STEP_S if moved else self._due_s(target, changes_at)
        if wake_at is not None:
            self._agenda.at(wake_at, partial(self._woken, self._wake))

    def _woken(self, number: int) -> None:
        if number == self._wake:
            self.think()

    def _due_s(self, target: Target | None, changes_at: float | None) -> float | None:
        """Return when the planner would say something else because of time alone."""
        now = self._agenda.now_s
        due = [changes_at] if changes_at is not None else []
        trial = self.memory.trials.get(self._steps.application)
        if trial is not None and target is not None:
            since = trial.ready_since
            due.append(trial.began + target.deadline_s if since is None else since + target.soak_s)
        due += [m.not_before for m in self.memory.instances.values() if m.not_before > now]
        due += [leaving.until for leaving in self.memory.leaving.values()]
        return max(min(due), now + 0.05) if due else None

    def _seen(self) -> Seen:
        releases = {digest: self._fact(digest) for digest in sorted(self._documents)}
        return Seen(dict(self.instances), releases, frozenset(self._laid_out))

    def _fact(self, digest: str) -> ReleaseFact:
        new = digest == self._steps.new_digest
        name = self._steps.new if new else next(n for n, d in self._steps.digests.items() if d == digest)
        here = digest in self._files
        return ReleaseFact(
            name=name,
            digest=digest,
            components=COMPONENTS,
            problem=(self.plan.problem if new else "") or self._failed.get(digest, ""),
            missing_bytes=0 if here else max(1, self._place.left_bytes(digest)),
            prepared=digest in self._laid_out,
            tested=digest in self._tested,
        )

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, action: Action) -> None:
        done = partial(self._done, self._task)
        match action:
            case FetchDocument():
                if self._place.online:
                    self._agenda.after(STEP_S, done)
            case Fetch():
                self._place.fetch(self, action.digest)
            case Prepare():
                self._agenda.after(self._steps.prepare_s, done)
            case _:
                self._agenda.after(self._steps.self_test_s, done)

    def _drop(self) -> None:
        """Go on no more with what is being done."""
        self._task += 1
        fetching, self._doing = self.fetching, None
        if fetching:
            self._place.stop_fetching(fetching)

    def _done(self, task: int) -> None:
        action = self._doing
        if task != self._task or action is None:
            return
        self._doing = None
        match action:
            case FetchDocument():
                self._documents.add(action.digest)
            case Fetch():
                self._files.add(action.digest)
            case Prepare():
                self._laid_out.add(action.digest)
            case SelfTest():
                if self._behaviour(action.digest) == "fails-self-test":
                    self._failed[action.digest] = "the only variant failed its self-test"
                else:
                    self._tested.add(action.digest)
            case _:
                pass
        self.think()

    def _apply(self, action: Action) -> bool:
        """Do what is done at once; tell whether the world changed by it."""
        match action:
            case Start():
                self._launch(action.instance, action.digest)
                if action.digest == self._steps.new_digest:
                    self._place.exposed(self)
            case StopInstance():
                fact = self.instances[action.instance]
                if fact.state != "running":
                    return False
                self.instances[action.instance] = msgspec.structs.replace(fact, state="stopping")
                self._agenda.after(STOPPING_S, partial(self._end, action.instance, fact.run))
            case RemoveInstance():
                self.instances.pop(action.instance, None)
            case Discard():
                self._laid_out.discard(action.digest)
                self._files.discard(action.digest)
            case _:
                return False
        return True

    def _behaviour(self, digest: str) -> str:
        return self.plan.behaviour if digest == self._steps.new_digest else "healthy"

    def _launch(self, key: str, digest: str) -> None:
        self._runs += 1
        run = str(self._runs)
        fact = InstanceFact("running", self._steps.application, COMPONENTS[0].name, digest, run=run)
        match self._behaviour(digest):
            case "cannot-start":
                fact = msgspec.structs.replace(fact, state="exited", fatal="the command is not there")
            case "crashes":
                self._agenda.after(CRASHES_AFTER_S, partial(self._end, key, run))
            case "never-ready":
                fact = msgspec.structs.replace(fact, started=True, probe_why="HTTP 503")
            case _:
                self._agenda.after(self._steps.start_s, partial(self._get_ready, key, run))
                self._await(self.plan.crashes_per_week, partial(self._end, key, run))
        self.instances[key] = fact

    def _get_ready(self, key: str, run: str) -> None:
        fact = self.instances.get(key)
        if fact is not None and fact.run == run and fact.state == "running" and not fact.ready:
            self.instances[key] = msgspec.structs.replace(fact, started=True, ready=True)
            self._place.changed(self)
            self.think()

    def _end(self, key: str, run: str) -> None:
        fact = self.instances.get(key)
        if fact is not None and fact.run == run and fact.state in ("running", "stopping"):
            code = 3 if fact.state == "running" else -15
            self.instances[key] = msgspec.structs.replace(fact, state="exited", exit_code=code, ready=False)
            self._place.changed(self)
            self.think()

    # ── mishaps ──────────────────────────────────────────────────────────────────────────────────────

    def _await(self, per_week: float, mishap: Callable[[], None]) -> None:
        if per_week > 0:
            self._agenda.after(self._place.rng.expovariate(per_week / WEEK_S), mishap)

    def _lose_power(self) -> None:
        """Lose what is not durable; all processes are gone when it is back, and the clock may be wrong."""
        if self.up:
            self.up = self.corrected = False
            self.memory = Memory()
            self._drop()
            for key, fact in self.instances.items():
                lost = {"state": "lost", "ready": False}
                self.instances[key] = msgspec.structs.replace(fact, **lost)
            self._agenda.after(self._place.rng.uniform(*OFF_S), self._boot)
        self._await(self.plan.power_cuts_per_week, self._lose_power)

    def _boot(self) -> None:
        self.up = True
        self._place.booted(self)
        self.think()


def digests_of(*releases: str) -> dict[str, str]:
    """Return a digest for each release that is named."""
    return {name: digest_of(name.encode()) for name in releases if name}
