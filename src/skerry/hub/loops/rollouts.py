"""The rollout loop: for every running rollout of which this replica has the lease, load the fleet, decide, apply.

A decision is applied with a version check, and only while nobody else has taken the lease. One that changes where the
rollout stands or what sites run is remembered with the digest of what went into it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.hub.fleet_facts import Fleet, FleetFacts, Freshen, rollout_fact, spec_of
from skerry.hub.gating import judge_waves
from skerry.hub.issuing import Issuer
from skerry.hub.judging import Judge
from skerry.hub.leasing import Held, Leases
from skerry.kit.errors import Bug, Conflict, as_failure
from skerry.ports.clock import Clock
from skerry.ports.deciding import DecisionRecord, Lease, Turn
from skerry.ports.hub_store import AssignmentRecord, HubStore, ReleaseRecord, RolloutRecord
from skerry.rollout.decide import ENDED, decide_rollout
from skerry.rollout.facts import Assign, Decision, Effect, RolloutFact
from skerry.rollout.recording import Recorder, inputs_digest, summarise_effects
from skerry.spec.api_rollout import Steering

_log = structlog.get_logger()

LOOK_EVERY_S = 30.0
LOOK_BESIDE_OTHERS_S = 10.0
"""How often to look where other replicas hear of hosts, and issue, what this one does not."""
REST_S = 0.2


class RolloutLoop:
    """Drives the running rollouts whose leases it gets."""

    def __init__(self, store: HubStore, issuer: Issuer, clock: Clock, judge: Judge, leases: Leases) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._judge = judge
        self._leases = leases
        self._facts = FleetFacts(store, issuer)
        self._wake = asyncio.Event()
        self._failing = ""
        self._wake_at: datetime | None = None
        self._beside_others = False
        self._follow_at = 0.0
        self.revoked: Callable[[ReleaseRecord], str] = lambda _: ""
        self.on_running: Callable[[Sequence[RolloutRecord]], None] = lambda _: None
        self.fresh: Freshen = lambda hosts: hosts
        self.recorder: Recorder | None = None

    def wake(self) -> None:
        """Look again soon: something changed."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Look at every change and every half minute, for ever."""
        while True:
            self._wake.clear()
            try:
                await self.step()
            except Exception as caught:
                error = as_failure(caught)
                if self._failing != error.code:
                    cause = error.__cause__ if isinstance(error, Bug) else None
                    _log.error("rollouts.failing", code=error.code, reason=str(error), exc_info=cause)
                self._failing = error.code
                await self._clock.sleep(1.0)
                continue
            if self._failing:
                _log.info("rollouts.restored")
                self._failing = ""
            await self._clock.sleep(REST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_in_s()):
                    await self._wake.wait()

    async def step(self) -> None:
        """Place again what hosts' reports may have moved, then decide every running rollout once that is ours."""
        running = await asyncio.to_thread(self._store.rollouts, running_only=True)
        self._leases.keep_only({record.name for record in running})
        self.on_running(running)
        self._issuer.fetch_ahead(_upcoming(running))
        await self._issuer.issue_marked()
        self._wake_at = None
        for record in running:
            held = await asyncio.to_thread(self._leases.hold, record.name)
            if held is not None:
                await self._advance(record, held)
            self._beside_others = self._beside_others or held is None
        if self._beside_others and self._clock.monotonic() >= self._follow_at:
            await self._issuer.follow_others()
            self._follow_at = self._clock.monotonic() + LOOK_BESIDE_OTHERS_S

    async def close(self) -> None:
        """Let other replicas take the rollouts at once: this one stops."""
        await asyncio.to_thread(self._leases.close)

    async def _advance(self, record: RolloutRecord, held: Held) -> None:
        if held.inherited:
            _log.info("rollout.inherited", rollout=record.name, token=held.lease.token)
            # Whoever had it before may have assigned something and not issued it any more.
            for site in record.sites:
                await self._issuer.issue(site)
        blocked = await self._judge.blocked(record)
        changed = await asyncio.to_thread(self._decide, record, held.lease, blocked)
        for site in changed:
            await self._issuer.issue(site)

    def _look_in_s(self) -> float:
        often_s = LOOK_BESIDE_OTHERS_S if self._beside_others else LOOK_EVERY_S
        if self._wake_at is None:
            return often_s
        return min(often_s, max(REST_S, (self._wake_at - self._clock.now()).total_seconds()))

    def _decide(self, record: RolloutRecord, lease: Lease, blocked: str) -> list[str]:
        """Decide one rollout and store the decision; return the sites whose desired state changes."""
        now = self._clock.now()
        fleet = self._facts.load(record, now, self.fresh)
        release = self._store.release(record.release)
        revoked = self.revoked(release) if release else ""
        verdicts = judge_waves(self._store, record, spec_of(record))
        fact = rollout_fact(record, blocked=blocked, revoked=revoked, verdicts=verdicts)
        decision = decide_rollout(fact, fleet.sites, now=now)
        if decision.wake_at is not None:
            self._wake_at = min(self._wake_at or decision.wake_at, decision.wake_at)
        updated = _updated(record, decision, now)
        if updated == record and not decision.effects:
            return []
        if not self._leases.counts(lease):
            return self._leave(record, "rollout.lease_over")
        turn = Turn(lease=lease, decision=_remembered(record, fact, fleet, decision, now=now))
        assign = _assignments(record, decision.effects, fleet.assigned)
        unassign = [(e.site, record.application) for e in decision.effects if not isinstance(e, Assign)]
        try:
            self._store.advance_rollout(updated, assign=assign, unassign=unassign, turn=turn)
        except Conflict as error:
            # Somebody retried, removed or took it meanwhile; the next look sees what is there then.
            return self._leave(record, error.code)
        if turn.decision is not None and self.recorder is not None:
            self.recorder(fact, fleet.sites, now, decision)
        if decision.effects or decision.state != record.state:
            self._wake.set()  # what is fetched ahead goes by what was stored just now
        self._log_decision(record, decision)
        return [effect.site for effect in decision.effects]

    def _leave(self, record: RolloutRecord, code: str) -> list[str]:
        """Drop a decision, and look again."""
        _log.info("rollout.decision_dropped", rollout=record.name, code=code)
        if code == "rollout.lease_lost":
            self._leases.forget(record.name)
        self._wake.set()
        return []

    def _log_decision(self, record: RolloutRecord, decision: Decision) -> None:
        if decision.effects or decision.state != record.state:
            _log.info(
                "rollout.decided",
                rollout=record.name,
                state=decision.state,
                why=decision.why,
                effects=len(decision.effects),
            )


def _updated(record: RolloutRecord, decision: Decision, now: datetime) -> RolloutRecord:
    steering = Steering(waves=decision.waves, control=record.steering.control, halt=decision.halt)
    return msgspec.structs.replace(
        record,
        state=decision.state,
        why=decision.why,
        ended_at=now if decision.state in ENDED else None,
        sites=dict(decision.sites),
        steering=steering,
    )


def _remembered(
    record: RolloutRecord, fact: RolloutFact, fleet: Fleet, decision: Decision, *, now: datetime
) -> DecisionRecord | None:
    """Return what is remembered of a decision; nothing of one that only moves sites on."""
    if not decision.effects and (decision.state, decision.why) == (record.state, record.why):
        return None
    return DecisionRecord(
        rollout=record.name,
        at=now,
        state=decision.state,
        why=decision.why,
        inputs=inputs_digest(fact, fleet.sites, now),
        effects=summarise_effects(decision),
    )


def _assignments(
    record: RolloutRecord, effects: Sequence[Effect], assigned: Mapping[str, AssignmentRecord]
) -> list[AssignmentRecord]:
    return [
        AssignmentRecord(
            site=effect.site,
            application=record.application,
            release=effect.release,
            rollout=record.name,
            # A new assignment is a person's word: it lifts a refusal of the same release.
            attempt=(assigned[effect.site].attempt if effect.site in assigned else 0) + 1,
        )
        for effect in effects
        if isinstance(effect, Assign)
    ]


def _upcoming(running: Sequence[RolloutRecord]) -> dict[str, dict[str, str]]:
    """Return, by site and application, the releases that sites will get, of rollouts that want them fetched ahead."""
    upcoming: dict[str, dict[str, str]] = {}
    for record in running:
        if spec_of(record).prefetch and record.state == "running":
            for site, progress in record.sites.items():
                if progress.state in ("pending", "unreachable"):
                    upcoming.setdefault(site, {})[record.application] = record.release
    return upcoming
