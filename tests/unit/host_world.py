"""A host without an operating system: what the planner's actions do, at virtual time, with faults between any two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

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
    TakeModels,
    Target,
    Wipe,
)
from skerry.spec.application import Component
from skerry.spec.ingress import Route

Behaviour = Literal[
    "healthy",
    "crashes",
    "never-ready",
    "startup-fails",
    "no-variant",
    "cannot-start",
    "fails-self-test",
    "deaf",
    "falls-in-soak",
]
APPLICATION = "reader"


class PowerCut(Exception):
    """The agent dies here."""


class World:
    """One host, one application with two components.

    `families` puts releases into families whose members differ in hot models only, `beside` lists those whose
    trial overlaps with the good release. A release that is deaf does not take models when it is told to.
    """

    def __init__(
        self,
        behaviours: Mapping[str, Behaviour],
        *,
        families: Mapping[str, str] | None = None,
        beside: frozenset[str] = frozenset(),
    ) -> None:
        self.behaviours = dict(behaviours)
        self.families = dict(families or {})
        self.beside = beside
        self.tested: set[str] = set()
        self.failed: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        self.wiped: dict[str, int] = {}
        self.full: dict[str, str] = {}
        self.hold = ""
        self.window = ""
        self.urgent = False
        self.now = 0.0
        self.records: dict[str, ApplicationRecord] = {}
        self.memory = Memory()
        self.instances: dict[str, InstanceFact] = {}
        self.documents: set[str] = set()
        self.files: set[str] = set()
        self.laid_out: set[str] = set()
        self.targets: dict[str, Target] = {}
        self.runs = 0
        self.actions: list[Action] = []
        self.started: list[tuple[str, int]] = []
        self.ticks: dict[str, int] = {}
        self.routes: dict[str, tuple[Route, ...]] = {}

    def want(self, release: str, attempt: int = 1, *, active: bool = True, wipe: int = 0) -> None:
        """Let the desired state name a release."""
        name = f"{APPLICATION}@{release}"
        target = Target(APPLICATION, name, release, attempt, 20.0, 3.0, placed=True, active=active, wipe=wipe)
        self.targets = {APPLICATION: target}

    def fact(self, digest: str) -> ReleaseFact:
        """Return what is known of a release."""
        components = tuple(Component(name=name, command=("run",)) for name in ("front", "back"))
        return ReleaseFact(
            name=f"{APPLICATION}@{digest}",
            digest=digest,
            components=components,
            problem="no variant fits"
            if self.behaviours[digest] == "no-variant"
            else self.failed.get(digest, ""),
            missing_bytes=0 if digest in self.files or digest in self.laid_out else 100,
            prepared=digest in self.laid_out,
            tested=digest in self.tested,
            family=self.families.get(digest, ""),
            hot=digest in self.families,
            update="blue-green" if digest in self.beside else "recreate",
            ingress=self.routes.get(digest, ()),
        )

    def seen(self) -> Seen:
        """Return what the planner sees."""
        releases = {digest: self.fact(digest) for digest in self.documents}
        return Seen(
            dict(self.instances),
            releases,
            frozenset(self.laid_out),
            taken=dict(self.taken),
            wiped=dict(self.wiped),
            full=dict(self.full),
        )

    def step(self, before_action: Callable[[Action | None], None] = lambda _: None) -> None:
        """Plan and apply once, a second later; `before_action` may raise `PowerCut`."""
        self.now += 1.0
        self._live()
        waits = {"hold": self.hold, "switch": self.window, "urgent": self.urgent}
        targets = {name: msgspec.structs.replace(target, **waits) for name, target in self.targets.items()}
        plan = plan_host(targets, self.records, self.seen(), self.memory, now=self.now)
        before_action(None)
        self.records = dict(plan.records)
        self.memory = plan.memory
        for action in plan.actions:
            before_action(action)
            self.apply(action)

    def apply(self, action: Action) -> None:  # noqa: PLR0912  (one case for each action)
        """Do what an action says; doing it twice does no more."""
        self.actions.append(action)
        match action:
            case FetchDocument():
                self.documents.add(action.digest)
            case Fetch():
                self.files.add(action.digest)
            case Prepare():
                self.laid_out.add(action.digest)
            case SelfTest():
                if self.behaviours[action.digest] == "fails-self-test":
                    self.failed[action.digest] = "the only variant failed its self-test"
                else:
                    self.tested.add(action.digest)
            case TakeModels():
                self._take(action)
            case Wipe():
                assert not self.alive(), "volumes are emptied under a running component"
                self.wiped[action.application] = action.count
            case Discard():
                self.laid_out.discard(action.digest)
                self.files.discard(action.digest)
            case Start():
                self._start(action)
            case StopInstance():
                fact = self.instances.get(action.instance)
                if fact is not None and fact.state == "running":
                    self.instances[action.instance] = msgspec.structs.replace(fact, state="stopping")
            case RemoveInstance():
                self.instances.pop(action.instance, None)
            case _:
                pass

    def crash(self, key: str) -> None:
        """End a running instance behind the agent's back."""
        fact = self.instances.get(key)
        if fact is not None and fact.state in ("running", "stopping"):
            self.instances[key] = msgspec.structs.replace(fact, state="exited", exit_code=1)

    def restart_agent(self) -> None:
        """Lose what is not durable."""
        self.memory = Memory()

    def reboot(self) -> None:
        """Lose all processes as well."""
        self.restart_agent()
        for key, fact in self.instances.items():
            self.instances[key] = msgspec.structs.replace(fact, state="lost")

    def alive(self) -> dict[str, InstanceFact]:
        """Return what runs now."""
        return {key: fact for key, fact in self.instances.items() if fact.state in ("running", "stopping")}

    def serving(self) -> set[tuple[str, str]]:
        """Return (release, component) of what runs and is ready; the release is the one whose models it uses."""
        return {
            (self.taken.get(f.family, f.release), f.component)
            for f in self.instances.values()
            if f.state == "running" and f.ready
        }

    def _take(self, action: TakeModels) -> None:
        fact = self.fact(action.digest)
        assert action.digest in self.laid_out, "models are taken that are not there"
        self.taken[fact.kin] = action.digest
        why = "HTTP 500" if self.behaviours[action.digest] == "deaf" else ""
        for key, instance in self.alive().items():
            if instance.kin == fact.kin:
                self.instances[key] = msgspec.structs.replace(
                    instance, stale=why, ready=False, started=False, dead=""
                )

    def _start(self, action: Start) -> None:
        self.runs += 1
        attempt = self.targets[APPLICATION].attempt if self.targets else 0
        self.started.append((action.digest, attempt))
        runs = InstanceFact(
            state="running",
            application=action.application,
            component=action.component,
            release=action.digest,
            family=self.families.get(action.digest, ""),
            run=str(self.runs),
        )
        if self.behaviours[action.digest] == "cannot-start":
            self.instances[action.instance] = msgspec.structs.replace(
                runs, state="exited", run=f"try-{self.runs}", fatal="the command is not there"
            )
            return
        self.ticks[action.instance] = 0
        self.instances[action.instance] = runs

    def _live(self) -> None:
        """Let a second pass in every process."""
        for key, fact in list(self.instances.items()):
            self.ticks[key] = self.ticks.get(key, 0) + 1
            if fact.state == "stopping" and self.ticks[key] > 1:
                self.instances[key] = msgspec.structs.replace(fact, state="exited", exit_code=-15)
            elif fact.state == "running":
                self.instances[key] = self._grown(fact, self.ticks[key])

    def _grown(self, fact: InstanceFact, age: int) -> InstanceFact:
        match self.behaviours[self.taken.get(fact.family, fact.release)]:
            case "healthy" | "deaf":
                return msgspec.structs.replace(fact, started=True, ready=True)
            case "crashes":
                return msgspec.structs.replace(fact, state="exited", exit_code=3)
            case "falls-in-soak" if age > 2:
                return msgspec.structs.replace(fact, state="exited", exit_code=9)
            case "falls-in-soak":
                return msgspec.structs.replace(fact, started=True, ready=True)
            case "startup-fails":
                return msgspec.structs.replace(fact, dead="HTTP 503")
            case _:
                return msgspec.structs.replace(fact, started=True, ready=False, probe_why="HTTP 503")
