"""The reconcile loop: load what is desired and seen, plan, make the plan's records durable, apply its actions.

Rules: records are durable before any action that follows from them; every action may be repeated; nothing
here needs the upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from skerry.agent.fetcher import Fetcher
from skerry.agent.loops.probe import ProbeLoop, Watched
from skerry.agent.loops.sync import Syncer
from skerry.agent.releases import Releases
from skerry.kit.durable import write_file
from skerry.kit.errors import Bug, Rejected, SkerryError, as_failure
from skerry.kit.quantities import parse_cpu, parse_size
from skerry.ports.agent_store import AgentStore
from skerry.ports.blobs import LocalBlobs
from skerry.ports.clock import Clock
from skerry.ports.runtime import InstanceSpec, InstanceView, Limits, Runtime
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
    RemoveInstance,
    Seen,
    Start,
    StopInstance,
    Target,
)
from skerry.reconcile.render import Place, Unresolved, render_component
from skerry.reconcile.view import view_applications
from skerry.spec.application import Component
from skerry.spec.facts import HostFacts
from skerry.spec.report import Observed

_log = structlog.get_logger()

LOG_BYTES = 1 << 20

T = TypeVar("T")


class Parts(msgspec.Struct, frozen=True):
    """What the loop works with."""

    store: AgentStore
    blobs: LocalBlobs
    runtime: Runtime
    releases: Releases
    fetcher: Fetcher
    probes: ProbeLoop
    syncer: Syncer
    clock: Clock
    facts: Callable[[], HostFacts]


class Reconciler:
    """Makes the host what the desired state says."""

    def __init__(self, parts: Parts, *, host: str, site: str, data: Path) -> None:
        self._parts = parts
        self._host = host
        self._site = site
        self._data = data
        self._memory = Memory()
        self._records = _load(parts.store, "records", dict[str, ApplicationRecord])
        self._remembers = parts.store.load("records") is not None
        self._ports = _load(parts.store, "ports", dict[str, int])
        self._troubles: dict[str, str] = {}
        self._unstartable: dict[str, InstanceFact] = {}
        self._tries = 0
        self._wake = asyncio.Event()
        self._status = b""
        self._tidied: set[str] | None = None
        self._sizes: dict[str, int] = {}
        parts.syncer.on_desired = self.wake
        parts.fetcher.on_change = self.wake
        parts.probes.on_change = self.wake

    def wake(self) -> None:
        """Look again at once."""
        self._wake.set()

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
        parts.releases.set_facts(facts)
        instances = await parts.runtime.instances()
        if not self._remembers:
            self._adopt(instances)
        targets = self._targets()
        self._watch(instances)
        seen = self._see(targets, instances)
        plan = plan_host(targets, self._records, seen, self._memory, now=parts.clock.monotonic())
        self._remember(plan)
        failure: SkerryError | None = None
        for action in plan.actions:
            # One that fails must not keep the others from happening; the next plan sees what came of it.
            try:
                await self._apply(action)
            except Exception as error:
                failure = failure or as_failure(error)
        self._tidy()
        views = view_applications(targets, self._records, seen, self._memory, plan.why)
        generation = parts.syncer.desired.generation if parts.syncer.desired else 0
        observed = Observed(generation=generation, applications=views)
        self._write_status(observed, facts)
        parts.syncer.tell(observed, facts)
        if failure is not None:
            raise failure
        return plan.wake_in_s

    # ── load ─────────────────────────────────────────────────────────────────────────────────────────

    def _targets(self) -> dict[str, Target]:
        desired = self._parts.syncer.desired
        if desired is None or self._host not in desired.hosts:
            # Nothing was desired here yet, or it was lost, or this host was removed from its site: absence is
            # no instruction, so what is good stays. To take an application away, the hub names the host without it.
            return {
                name: Target(name, "", record.good) for name, record in self._records.items() if record.good
            }
        targets: dict[str, Target] = {}
        for assignment in desired.hosts.get(self._host, ()):
            ref = desired.releases.get(assignment.release)
            if ref is None:
                continue
            self._sizes[ref.digest] = ref.size_bytes
            targets[assignment.application] = Target(
                assignment.application,
                assignment.release,
                ref.digest,
                assignment.attempt,
                assignment.health.deadline_s,
                assignment.health.soak_s,
            )
        return targets

    def _see(self, targets: Mapping[str, Target], instances: Mapping[str, InstanceView]) -> Seen:
        releases = self._parts.releases
        digests = {target.digest for target in targets.values()}
        digests |= {d for r in self._records.values() for d in (r.good, r.previous, r.candidate)}
        digests |= {view.labels.get("release", "") for view in instances.values()}
        known = {digest: fact for digest in digests if digest and (fact := releases.fact(digest))}
        facts = {key: self._instance(key, view) for key, view in instances.items()}
        facts = {**self._unstartable, **facts}
        troubles = {**self._troubles, **self._parts.fetcher.troubles}
        return Seen(facts, known, releases.laid_out(), troubles)

    def _instance(self, key: str, view: InstanceView) -> InstanceFact:
        probe = self._parts.probes.states.get(key)
        labels = view.labels
        ports = {
            name.removeprefix("port."): text for name, text in labels.items() if name.startswith("port.")
        }
        return InstanceFact(
            state=view.state,
            application=labels.get("application", key.split(".", maxsplit=1)[0]),
            component=labels.get("component", ""),
            release=labels.get("release", ""),
            run=f"{view.pid}@{view.started_at}",
            exit_code=view.exit_code,
            started=probe is not None and probe.started,
            ready=probe is not None and probe.ready,
            dead=probe.dead if probe else "",
            probe_why=probe.why if probe else "",
            limits=view.limits,
            endpoints={name: f"127.0.0.1:{port}" for name, port in ports.items()},
        )

    def _adopt(self, instances: Mapping[str, InstanceView]) -> None:
        """Take what is on this host for good when no record was ever stored: the database was lost, they were not.

        Otherwise they would count as wanted no more and be ended, perhaps with no upstream to bring them back.
        """
        alive_first = sorted(instances.values(), key=lambda view: view.state not in ("running", "stopping"))
        adopted: dict[str, ApplicationRecord] = {}
        for view in alive_first:
            name, release = view.labels.get("application", ""), view.labels.get("release", "")
            if name and release and name not in adopted:
                adopted[name] = ApplicationRecord(name, good=release)
        self._parts.store.save({"records": msgspec.json.encode(adopted)})
        for name in adopted:
            self._parts.syncer.note("application.adopted", "it was here, and unknown", application=name)
        self._records, self._remembers = adopted, True

    def _watch(self, instances: Mapping[str, InstanceView]) -> None:
        watched: dict[str, Watched] = {}
        for key, view in instances.items():
            component = self._component(view.labels.get("release", ""), view.labels.get("component", ""))
            if view.state == "running" and component is not None:
                ports = {
                    name.removeprefix("port."): int(text)
                    for name, text in view.labels.items()
                    if name.startswith("port.")
                }
                watched[key] = Watched(f"{view.pid}@{view.started_at}", component.probes, ports)
        self._parts.probes.watch(watched)

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
            case FetchDocument():
                if action.digest in self._sizes:
                    parts.fetcher.want(action.digest, [(action.digest, self._sizes[action.digest])])
            case Fetch():
                files = [
                    (str(file.digest), file.size_bytes) for file in parts.releases.missing(action.digest)
                ]
                parts.fetcher.want(action.digest, files)
            case Prepare():
                await self._prepare(action.digest)
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

    async def _prepare(self, digest: str) -> None:
        try:
            await asyncio.to_thread(self._parts.releases.prepare, digest)
        except SkerryError as error:
            if self._troubles.get(digest) != error.message:
                self._parts.syncer.note("release.trouble", f"{error.code}: {error.message}")
            self._troubles[digest] = error.message
        else:
            self._troubles.pop(digest, None)
            self.wake()

    async def _start(self, action: Start) -> None:
        self._unstartable.pop(action.instance, None)
        component = self._component(action.digest, action.component)
        if component is None:
            return
        try:
            await self._parts.runtime.start(self._instance_spec(action, component))
        except (SkerryError, OSError) as caught:
            error = as_failure(caught)
            self._tries += 1
            self._unstartable[action.instance] = InstanceFact(
                state="exited",
                application=action.application,
                component=action.component,
                release=action.digest,
                run=f"try-{self._tries}",
                fatal=error.message if isinstance(error, Rejected) else "",
                probe_why=error.message,
            )
        self.wake()

    def _instance_spec(self, action: Start, component: Component) -> InstanceSpec:
        releases = self._parts.releases
        fact = releases.fact(action.digest)
        desired = self._parts.syncer.desired
        data = self._data / "volumes" / action.application / component.name
        data.mkdir(parents=True, exist_ok=True)
        ports = {port.name: port.port or self._choose_port(action, port.name) for port in component.ports}
        bundle = releases.bundle(action.digest, component.name)
        place = Place(
            site=self._site,
            host=self._host,
            application=action.application,
            release=fact.name if fact else "",
            data=str(data),
            bundle=str(bundle) if component.bundle else "",
            models={m.name: str(releases.model(action.digest, m.name)) for m in component.models},
            ports=ports,
            variables=desired.variables if desired else {},
            path=os.environ.get("PATH", os.defpath),
        )
        rendered = render_component(component, place)
        if isinstance(rendered, Unresolved):
            names = ", ".join(f"${{{name}}}" for name in rendered.names)
            raise Rejected("component.unresolved", f"this site gives no value for {names}")
        resources = component.resources
        limits = Limits(
            memory_bytes=parse_size(resources.memory) if resources.memory else 0,
            cpus=parse_cpu(resources.cpu) if resources.cpu else 0.0,
            log_bytes=LOG_BYTES,
        )
        labels = {"application": action.application, "component": component.name, "release": action.digest}
        labels.update((f"port.{name}", str(number)) for name, number in ports.items())
        return InstanceSpec(
            id=action.instance,
            command=rendered[0],
            env=rendered[1],
            directory=data,
            limits=limits,
            labels=labels,
        )

    def _choose_port(self, action: Start, name: str) -> int:
        """Return the port this component keeps on this host, over releases and restarts; a free one at first."""
        key = f"{action.application}.{action.component}.{name}"
        if key not in self._ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[key] = int(probe.getsockname()[1])
            self._parts.store.save({"ports": msgspec.json.encode(self._ports)})
        return self._ports[key]

    def _component(self, digest: str, name: str) -> Component | None:
        fact = self._parts.releases.fact(digest) if digest else None
        return next((c for c in fact.components if c.name == name), None) if fact else None

    # ── after ────────────────────────────────────────────────────────────────────────────────────────

    def _tidy(self) -> None:
        """Forget what no application needs: downloads, troubles, and blobs once nothing is under way."""
        needed = {d for r in self._records.values() for d in (r.good, r.previous, r.candidate) if d}
        self._parts.fetcher.forget(needed)
        self._troubles = {digest: why for digest, why in self._troubles.items() if digest in needed}
        if needed == self._tidied or any(record.candidate for record in self._records.values()):
            return
        self._tidied = needed
        wanted = {blob for digest in needed for blob in self._parts.releases.blobs_of(digest)}
        for digest in self._parts.blobs.digests() - wanted:
            self._parts.blobs.remove(digest)

    def _write_status(self, observed: Observed, facts: HostFacts) -> None:
        contact = self._parts.syncer.last_contact
        status = msgspec.json.encode(
            {
                "host": self._host,
                "site": self._site,
                "last_contact": contact,
                "observed": observed,
                "facts": facts,
            }
        )
        if status != self._status:
            self._status = status
            with contextlib.suppress(SkerryError):
                # For people at the host only; a full disk must not stop the loop.
                write_file(self._data / "status.json", status, sync=False)


def _load(store: AgentStore, key: str, kind: type[T]) -> T:
    return msgspec.json.decode(store.load(key) or b"{}", type=kind)
