"""The planner: what a host does next.

An update goes: fetch, prepare, self-test (the good release runs on), then the trial: start the candidate, probe
it until it is ready, soak, take it for good. Any failure refuses the candidate and runs the good one again.
What the trial does to the good release depends: it is ended first (recreate), goes on beside the candidate
(blue-green), or is kept and takes the candidate's models while it runs (hot).

A release is tried, kept and refused together with its configuration: another configuration of the same release is
another candidate, which goes the same way. Components that need not be restarted for it are not.

What nobody vouches for is not taken; what was revoked is not taken any more, and where it runs, the revocation says
whether it runs on, is ended, or gives way to the release before it.

Rules (docs/rules): the good release's files are never discarded before another is good; a component never
runs twice unless its releases are meant to overlap; a refused release is not tried again at the same attempt;
nothing here needs a network; no trial begins against a hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from skerry.kit.editions import release_in
from skerry.kit.quantities import format_duration, format_size, parse_duration
from skerry.reconcile.records import (
    Action,
    ApplicationRecord,
    Discard,
    Fetch,
    FetchDocument,
    Happened,
    InstanceFact,
    InstanceMemory,
    Leaving,
    Memory,
    Plan,
    Prepare,
    Refusal,
    ReleaseFact,
    RemoveInstance,
    Seen,
    SelfTest,
    Start,
    StopInstance,
    TakeModels,
    Target,
    TrialMemory,
    TrialPhase,
    Wipe,
)

MAX_TRIALS = 3
MAX_TRIAL_CRASHES = 3
MAX_REFUSALS = 32
BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
STABLE_AFTER_S = 60.0
LEAVE_AFTER_S = 5.0
"""How long a release goes on beside the one that was proven, for those who were told of it a moment ago."""


def plan_host(
    targets: Mapping[str, Target],
    records: Mapping[str, ApplicationRecord],
    seen: Seen,
    memory: Memory,
    *,
    now: float,
) -> Plan:
    """Return the plan for all applications of a host; `now` is monotonic seconds."""
    run = _Run(seen, memory, now)
    next_records: dict[str, ApplicationRecord] = {}
    for name in sorted({*targets, *records, *(fact.application for fact in seen.instances.values())}):
        record = run.plan_application(targets.get(name), records.get(name) or ApplicationRecord(name))
        if record is not None:
            next_records[name] = record
    needed = {release_in(d) for r in next_records.values() for d in (r.good, r.previous, r.candidate)}
    running = (fact for fact in seen.instances.values() if fact.state in ("running", "stopping"))
    in_use = {release_in(fact.release) for fact in running}
    # What the durable records of this moment name stays until the next ones are durable.
    held = {release_in(d) for r in records.values() for d in (r.good, r.candidate)}
    run.actions.extend(Discard(digest) for digest in sorted(seen.laid_out - needed - in_use - held))
    instances = {
        key: value for key, value in run.instances.items() if key in seen.instances or key in run.started
    }
    trials = {key: value for key, value in run.trials.items() if key in next_records}
    leaving = {key: value for key, value in run.leaving.items() if key in next_records}
    return Plan(next_records, Memory(instances, trials, leaving), tuple(run.actions), run.why, run.wake_in_s)


def backoff_s(restarts: int) -> float:
    """Return how long to wait before restart number `restarts`: 1, 2, 4 ... 60 s."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(restarts - 1, 16), BACKOFF_MOST_S) if restarts > 0 else 0.0


class _Run:
    """One call of the planner: collects actions and the memory that follows."""

    def __init__(self, seen: Seen, memory: Memory, now: float) -> None:
        self.seen = seen
        self.now = now
        self.actions: list[Action] = []
        self.why: dict[str, str] = {}
        self.started: set[str] = set()
        self.wake_in_s = 5.0
        self.trials = dict(memory.trials)
        self.leaving = {name: leaving for name, leaving in memory.leaving.items() if leaving.until > now}
        self.instances = {
            key: self._notice(memory.instances.get(key), fact) for key, fact in seen.instances.items()
        }

    # ── one application ──────────────────────────────────────────────────────────────────────────────

    def plan_application(self, target: Target | None, record: ApplicationRecord) -> ApplicationRecord | None:
        name = record.application
        if target is None:
            self.trials.pop(name, None)
            self.why[name] = "not wanted here any more"
            return record if self._clear(name) else None
        if target.wipe > self.seen.wiped.get(name, 0):
            self.trials.pop(name, None)
            self.why[name] = "its volumes are to be emptied"
            if not self._clear(name):
                self.actions.append(Wipe(name, target.wipe))
                self._wake(0.0)
            return record
        refusal = record.refused.get(target.digest)
        if refusal and target.attempt > refusal.attempt:
            record = _replace(record, refused={k: v for k, v in record.refused.items() if k != target.digest})
            refusal = None
        record = self._withdraw(record)
        revoked = self.seen.revoked.get(target.digest)
        if target.digest == record.good or refusal or revoked:
            against = f"{refusal.release} was refused: {refusal.reason}" if refusal else ""
            against = revoked.why if revoked else against
            if not target.active:
                return self._stand_by(_abandon(record), name, against or target.duty)
            self.why[name] = against or target.duty
            return self._run_good(_abandon(record), name)
        if record.candidate != target.digest:
            self.trials.pop(name, None)
            self._tell("release.offered", target.release, name)
            record = _replace(record, candidate=target.digest, phase="fetching", trials=0)
        return self._try_candidate(target, record)

    def _stand_by(self, record: ApplicationRecord, name: str, why: str) -> ApplicationRecord:
        """Hold everything ready and run nothing: it is another host's turn."""
        self.trials.pop(name, None)
        self._clear(name)
        self.why[name] = why
        return _replace(record, trials=0)

    def _withdraw(self, record: ApplicationRecord) -> ApplicationRecord:
        """Go back to the release before the good one, where the good one was revoked and is to be replaced."""
        revoked = self.seen.revoked.get(record.good)
        previous = self.seen.releases.get(record.previous)
        if revoked is None or revoked.running != "replace" or record.previous in self.seen.revoked:
            return record
        if previous is None or not previous.prepared:
            return record
        self._tell("release.withdrawn", revoked.why, record.application)
        return _replace(record, good=record.previous, previous="")

    def _is_to_stop(self, record: ApplicationRecord) -> bool:
        """Tell whether the good release was revoked and must not run on."""
        revoked = self.seen.revoked.get(record.good)
        return revoked is not None and revoked.running == "stop"

    def _run_good(self, record: ApplicationRecord, name: str) -> ApplicationRecord:
        self.trials.pop(name, None)
        if self._is_to_stop(record):
            self._clear(name)
            return record
        release = self.seen.releases.get(record.good)
        if release is None or not release.prepared:
            self._clear(name, keep=frozenset({release.kin if release else record.good}))
            if record.good:
                self._recover(record.good, release, name)
            return record
        self._run_release(name, release)
        return record

    def _recover(self, digest: str, release: ReleaseFact | None, name: str) -> None:
        """Get back the good release when its files are not there, say after a disk was replaced."""
        self.why[name] = "the files of the good release are not there: " + self.seen.troubles.get(
            digest, "fetching"
        )
        if release is None:
            self.actions.append(FetchDocument(digest))
        else:
            self.actions.append(Fetch(digest) if release.missing_bytes else Prepare(digest))

    def _try_candidate(self, target: Target, record: ApplicationRecord) -> ApplicationRecord:
        name, release = record.application, self.seen.releases.get(record.candidate)
        trouble = self.seen.troubles.get(record.candidate, "")
        if (withheld := self.seen.withheld.get(record.candidate)) and name not in self.trials:
            self._keep_good_running(target, record)
            self.why[name] = withheld
            return _replace(record, phase="fetching")
        if release is not None and release.problem:
            return self._refuse(target, record, release.problem)
        if release is None or not release.prepared or not release.tested:
            self._keep_good_running(target, record)
            if release is None:
                self.actions.append(FetchDocument(record.candidate))
                self.why[name] = trouble or "fetching the release document"
                return _replace(record, phase="fetching")
            if release.missing_bytes:
                self.actions.append(Fetch(record.candidate))
                self.why[name] = trouble or f"fetching, {format_size(release.missing_bytes)} to go"
                return _replace(record, phase="fetching")
            if not release.prepared:
                self.actions.append(Prepare(record.candidate))
                self.why[name] = trouble or "verifying and laying out files"
                return _replace(record, phase="preparing")
            self.actions.append(SelfTest(record.candidate))
            self.why[name] = trouble or "running the self-tests of its models"
            return _replace(record, phase="testing")
        if not target.active:
            return _replace(self._stand_by(record, name, target.duty), phase="standing-by")
        waits, why = _waits(target, record)
        if waits:
            self._keep_good_running(target, record)
            self.why[name] = why
            return _replace(record, phase=waits)
        return self._on_trial(target, record, release)

    def _keep_good_running(self, target: Target, record: ApplicationRecord) -> None:
        good = self.seen.releases.get(record.good)
        if not target.active or self._is_to_stop(record):
            self._clear(record.application)
        elif good is not None and good.prepared:
            self._run_release(record.application, good)

    def _on_trial(self, target: Target, record: ApplicationRecord, release: ReleaseFact) -> ApplicationRecord:
        name = record.application
        trial = self.trials.get(name)
        if trial is None or trial.digest != release.digest:
            if record.trials >= MAX_TRIALS:
                reason = f"the host or its agent restarted {MAX_TRIALS} times during the trial"
                return self._refuse(target, record, reason)
            trial = TrialMemory(release.digest, began=self.now)
            self.trials[name] = trial
            self._forgive(name, release)
            self._tell("release.trial", target.release, name)
            # The count is durable before anything starts: a release that takes the host down is found out.
            return _replace(record, phase="starting", trials=record.trials + 1)
        if failure := self._trial_failure(name, release):
            return self._refuse(target, record, failure)
        good = None if self._is_to_stop(record) else self.seen.releases.get(record.good)
        ready = self._all_ready(name, release)
        left = trial.began + target.deadline_s + (target.soak_s if trial.ready_since else 0) - self.now
        if not ready and left <= 0:
            # Before anything of it is started once more.
            unready = self._unready(name, release)
            reason = f"not ready within {format_duration(target.deadline_s)}: {unready}"
            return self._refuse(target, record, reason)
        self._run_release(name, release, beside=good if _overlaps(good, release) else None)
        if not ready:
            self.trials[name] = msgspec.structs.replace(trial, ready_since=None)
            self.why[name] = f"waiting for {self._unready(name, release)}"
            self._wake(left)
            return _replace(record, phase="starting")
        ready_since = self.now if trial.ready_since is None else trial.ready_since
        self.trials[name] = msgspec.structs.replace(trial, ready_since=ready_since)
        left = ready_since + target.soak_s - self.now
        if left > 0:
            self.why[name] = f"ready; soaking for another {format_duration(left)}"
            self._wake(left)
            return _replace(record, phase="soaking")
        self.trials.pop(name, None)
        if good is not None and _overlaps(good, release):
            stays_s = max(LEAVE_AFTER_S, good.drain_s)
            self.leaving[name] = Leaving(release.digest, good.kin, self.now + stays_s)
        self._tell("release.proven", target.release, name)
        return _replace(record, good=release.digest, previous=record.good, candidate="", phase="", trials=0)

    def _refuse(self, target: Target, record: ApplicationRecord, reason: str) -> ApplicationRecord:
        name = record.application
        self.trials.pop(name, None)
        self._tell("release.refused", f"{target.release}: {reason}", name)
        refused = {**record.refused, record.candidate: Refusal(target.release, reason, target.attempt)}
        while len(refused) > MAX_REFUSALS:
            refused.pop(next(iter(refused)))
        self.why[name] = f"{target.release} was refused: {reason}"
        self._wake(0.0)
        return _abandon(_replace(record, refused=refused))

    # ── instances of one application ─────────────────────────────────────────────────────────────────

    def _run_release(self, name: str, release: ReleaseFact, *, beside: ReleaseFact | None = None) -> None:
        """Bring an application's instances to exactly this release: others but `beside` end before these begin."""
        keep = {fact.kin for fact in (release, beside) if fact is not None}
        leaving = self.leaving.get(name)
        if leaving is not None and leaving.digest == release.digest:
            keep.add(leaving.kin)
            self._wake(leaving.until - self.now)
        if self._clear(name, keep=frozenset(keep)):
            return
        if beside is not None:
            self._keep_up(name, beside)
        self._keep_up(name, release)

    def _keep_up(self, name: str, release: ReleaseFact) -> None:
        """Start what of a release does not run, and end what must start anew."""
        if release.hot and self.seen.taken.get(release.kin) != release.digest:
            self.actions.append(TakeModels(name, release.digest))
            return
        for component in release.components:
            key = release.instance_id(name, component.name)
            fact = self.seen.instances.get(key)
            memory = self.instances.get(key, InstanceMemory())
            full = self.seen.full.get(f"{name}.{component.name}", "")
            if fact is not None and fact.state in ("running", "stopping"):
                if fact.state == "running" and (why := full or fact.stale or fact.dead):
                    kind = "component.full" if full else "component.stale" if fact.stale else "component.dead"
                    self._tell(kind, why if full or fact.stale else f"liveness: {why}", name, component.name)
                    grace_s = parse_duration(component.stop.grace)
                    self.actions.append(StopInstance(key, component.stop.signal, grace_s))
                elif fact.state == "running" and (outdated := self.seen.outdated.get(key)):
                    # Asked for, so that it begins again at once and counts as no crash.
                    self.instances[key] = msgspec.structs.replace(memory, asked_to_stop=True)
                    self._tell("component.outdated", outdated, name, component.name)
                    grace_s = parse_duration(component.stop.grace)
                    self.actions.append(StopInstance(key, component.stop.signal, grace_s))
                continue
            if full:
                continue
            if memory.not_before > self.now:
                self._wake(memory.not_before - self.now)
                continue
            self.started.add(key)
            self.instances[key] = msgspec.structs.replace(memory, asked_to_stop=False, running_since=self.now)
            self.actions.append(Start(key, name, release.digest, component.name))

    def _forgive(self, name: str, release: ReleaseFact) -> None:
        """Begin a trial with a clean slate, also on instances that were there before it."""
        for component in release.components:
            key = release.instance_id(name, component.name)
            fact = self.seen.instances.get(key)
            if fact is not None and fact.state in ("exited", "lost"):
                self.actions.append(RemoveInstance(key))
                self.instances.pop(key, None)
            elif key in self.instances:
                self.instances[key] = msgspec.structs.replace(self.instances[key], restarts=0)

    def _clear(self, name: str, *, keep: frozenset[str] = frozenset()) -> bool:
        """End and forget all instances of an application but those of families to keep; True while some are alive."""
        alive = False
        for key, fact in sorted(self.seen.instances.items()):
            if fact.application != name or fact.kin in keep:
                continue
            if fact.state in ("exited", "lost"):
                self.actions.append(RemoveInstance(key))
                self.instances.pop(key, None)
                continue
            alive = True
            if fact.state == "running":
                stop = self._stop_of(fact)
                memory = self.instances.get(key, InstanceMemory())
                self.instances[key] = msgspec.structs.replace(memory, asked_to_stop=True)
                self.actions.append(StopInstance(key, stop[0], stop[1]))
        if alive:
            self._wake(0.2)
        return alive

    def _stop_of(self, fact: InstanceFact) -> tuple[str, float]:
        release = self.seen.releases.get(fact.release)
        for component in release.components if release else ():
            if component.name == fact.component:
                return component.stop.signal, parse_duration(component.stop.grace)
        return "TERM", 10.0

    def _notice(self, memory: InstanceMemory | None, fact: InstanceFact) -> InstanceMemory:
        """Count an end that nobody asked for, once, and set when the instance may start again."""
        known = memory is not None
        memory = memory or InstanceMemory()
        if fact.state in ("running", "stopping"):
            since = self.now if memory.running_since is None else memory.running_since
            memory = msgspec.structs.replace(memory, running_since=since)
            if self.now - since >= STABLE_AFTER_S and memory.restarts and fact.state == "running":
                memory = msgspec.structs.replace(memory, restarts=0)
            return memory
        if memory.handled_run == fact.run:
            return memory
        memory = msgspec.structs.replace(memory, handled_run=fact.run, running_since=None)
        # An end that was asked for, or that a new agent finds, is no crash.
        if memory.asked_to_stop or not known:
            return memory
        restarts = memory.restarts + 1
        how = f"exit code {fact.exit_code}" if fact.exit_code is not None else fact.probe_why or "lost"
        wait_s = backoff_s(restarts)
        self._tell(
            "component.ended", f"{how}; restart {restarts} in {wait_s:.0f}s", fact.application, fact.component
        )
        return msgspec.structs.replace(memory, restarts=restarts, not_before=self.now + wait_s)

    def _trial_failure(self, name: str, release: ReleaseFact) -> str:
        if release.hot and self.seen.taken.get(release.kin) != release.digest:
            return ""  # what runs does so with other models, and says nothing about these
        if worse := self.seen.gates.get(release.digest):
            return worse
        for component in release.components:
            key = release.instance_id(name, component.name)
            fact, memory = self.seen.instances.get(key), self.instances.get(key)
            if fact and fact.fatal:
                return f"{component.name} cannot be started: {fact.fatal}"
            running = fact is not None and fact.state == "running"
            if fact and fact.stale and running:
                return f"{component.name} did not take what is new: {fact.stale}"
            if fact and fact.dead and not fact.started and running:
                return f"{component.name}: startup probe failed: {fact.dead}"
            if memory and memory.restarts >= MAX_TRIAL_CRASHES:
                how = f", exit code {fact.exit_code}" if fact and fact.exit_code is not None else ""
                return f"{component.name} ended {memory.restarts} times{how}"
        return ""

    def _all_ready(self, name: str, release: ReleaseFact) -> bool:
        return not self._unready(name, release)

    def _unready(self, name: str, release: ReleaseFact) -> str:
        if release.hot and self.seen.taken.get(release.kin) != release.digest:
            return "what is new to be taken"
        parts: list[str] = []
        for component in release.components:
            key = release.instance_id(name, component.name)
            fact = self.seen.instances.get(key)
            if fact is None or fact.state != "running":
                parts.append(f"{component.name} ({(fact and fact.fatal) or 'not running'})")
            elif outdated := self.seen.outdated.get(key):
                parts.append(f"{component.name} (to be restarted: {outdated})")
            elif not fact.ready:
                parts.append(f"{component.name} ({fact.probe_why or 'not ready'})")
        return ", ".join(parts)

    def _tell(self, kind: str, message: str, application: str, component: str = "") -> None:
        self.actions.append(Happened(kind, message, application, component))

    def _wake(self, in_s: float) -> None:
        self.wake_in_s = max(0.05, min(self.wake_in_s, in_s))


def _replace(record: ApplicationRecord, **changes: object) -> ApplicationRecord:
    return msgspec.structs.replace(record, **changes)


def _overlaps(good: ReleaseFact | None, release: ReleaseFact) -> bool:
    """Tell whether the good release goes on while this one is on trial beside it."""
    if good is None or not good.prepared or good.kin == release.kin:
        return False
    only_models_changed = bool(release.frame) and release.frame == good.frame
    may = release.update == "auto" and only_models_changed and not (good.alone or release.alone)
    return release.update in ("blue-green", "shadow") or may


def _waits(target: Target, record: ApplicationRecord) -> tuple[TrialPhase, str]:
    """Return what a release that is ready waits for, and why; both empty when it may be tried."""
    if record.phase in ("starting", "soaking"):
        return "", ""  # what has begun is finished
    if target.hold:
        # A first release, too: a hub that took the good one away could otherwise bring another in its place.
        return "held", f"ready; {target.hold}"
    if target.switch and record.good and not target.urgent:
        # Where nothing runs there is nothing to interrupt.
        return "waiting-window", target.switch
    return "", ""


def _abandon(record: ApplicationRecord) -> ApplicationRecord:
    return _replace(record, candidate="", phase="", trials=0)
