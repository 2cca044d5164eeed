"""The rollout loop: for every running rollout, load the fleet, decide, apply with a version check."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.hub.fleet_facts import FleetFacts, rollout_fact, spec_of
from skerry.hub.gating import judge_waves
from skerry.hub.issuing import Issuer
from skerry.hub.judging import Judge
from skerry.kit.errors import Bug, Conflict, as_failure
from skerry.ports.clock import Clock
from skerry.ports.hub_store import AssignmentRecord, HubStore, ReleaseRecord, RolloutRecord
from skerry.rollout.decide import ENDED, decide_rollout
from skerry.rollout.facts import Assign, Decision, Effect
from skerry.spec.api_rollout import Steering

_log = structlog.get_logger()

LOOK_EVERY_S = 30.0
REST_S = 0.2


class RolloutLoop:
    """Drives all running rollouts."""

    def __init__(self, store: HubStore, issuer: Issuer, clock: Clock, judge: Judge) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._judge = judge
        self._facts = FleetFacts(store, issuer)
        self._wake = asyncio.Event()
        self._failing = ""
        self._wake_at: datetime | None = None
        self.revoked: Callable[[ReleaseRecord], str] = lambda _: ""
        self.on_running: Callable[[Sequence[RolloutRecord]], None] = lambda _: None

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
        """Place again what hosts' reports may have moved, then decide every running rollout once."""
        running = await asyncio.to_thread(self._store.rollouts, running_only=True)
        self.on_running(running)
        self._issuer.fetch_ahead(_upcoming(running))
        await self._issuer.issue_marked()
        self._wake_at = None
        for record in running:
            blocked = await self._judge.blocked(record)
            changed = await asyncio.to_thread(self._decide, record, blocked)
            for site in changed:
                await self._issuer.issue(site)

    def _look_in_s(self) -> float:
        if self._wake_at is None:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(REST_S, (self._wake_at - self._clock.now()).total_seconds()))

    def _decide(self, record: RolloutRecord, blocked: str) -> list[str]:
        """Decide one rollout and store the decision; return the sites whose desired state changes."""
        now = self._clock.now()
        fleet = self._facts.load(record, now)
        release = self._store.release(record.release)
        revoked = self.revoked(release) if release else ""
        verdicts = judge_waves(self._store, record, spec_of(record))
        fact = rollout_fact(record, blocked=blocked, revoked=revoked, verdicts=verdicts)
        decision = decide_rollout(fact, fleet.sites, now=now)
        if decision.wake_at is not None:
            self._wake_at = min(self._wake_at or decision.wake_at, decision.wake_at)
        steering = Steering(waves=decision.waves, control=record.steering.control, halt=decision.halt)
        updated = msgspec.structs.replace(
            record,
            state=decision.state,
            why=decision.why,
            ended_at=now if decision.state in ENDED else None,
            sites=dict(decision.sites),
            steering=steering,
        )
        if updated == record and not decision.effects:
            return []
        assign = _assignments(record, decision.effects, fleet.assigned)
        unassign = [(e.site, record.application) for e in decision.effects if not isinstance(e, Assign)]
        try:
            self._store.advance_rollout(updated, assign=assign, unassign=unassign)
        except Conflict:
            # Somebody retried or removed it meanwhile; the next look sees what is there then.
            self._wake.set()
            return []
        if decision.effects or decision.state != record.state:
            self._wake.set()  # what is fetched ahead goes by what was stored just now
        self._log_decision(record, decision)
        return [effect.site for effect in decision.effects]

    def _log_decision(self, record: RolloutRecord, decision: Decision) -> None:
        if decision.effects or decision.state != record.state:
            _log.info(
                "rollout.decided",
                rollout=record.name,
                state=decision.state,
                why=decision.why,
                effects=len(decision.effects),
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
