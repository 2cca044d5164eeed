"""A fleet that a rollout is decided over: hosts that take, refuse, fall silent and go back, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from skerry.rollout.decide import ENDED, decide_rollout
from skerry.rollout.facts import (
    Amount,
    Assign,
    Decision,
    HostFact,
    RolloutFact,
    SiteFact,
    Stage,
    WavePlan,
)
from skerry.rollout.states import AT_WORK, LEGAL_STEPS
from skerry.spec.api_rollout import Control, SiteRolloutState

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NEW, OLD = "reader@2", "reader@1"
Behaviour = Literal["good", "bad"]
STAGES: tuple[Stage, ...] = ("downloading", "ready", "waiting_window", "held", "applying", "soaking")

CANARY = (
    WavePlan("canary", size=Amount(count=1), soak_s=60.0),
    WavePlan("early", size=Amount(share=0.5), max_in_flight=Amount(count=2), soak_s=60.0),
    WavePlan("rest", max_in_flight=Amount(share=0.5)),
)
ONE = (WavePlan("all"),)


class RolloutWorld:
    """Sites of one host each, and a rollout over them. Checks at each decision what must always hold."""

    def __init__(
        self,
        sites: Mapping[str, Behaviour],
        waves: tuple[WavePlan, ...] = CANARY,
        *,
        previous: str = OLD,
        **rollout: Any,
    ) -> None:
        self.now = NOW
        self.behaviours = dict(sites)
        self.rollout = RolloutFact(name="second", release=NEW, waves=waves, **rollout)
        self.sites = {
            name: SiteFact(
                name,
                (HostFact("h-" + name, holds_offer=False, running=previous, as_of=NOW),),
                previous,
                labels={"region": name[-1:]},
            )
            for name in sites
        }
        self.offered: list[str] = []

    def decide(self) -> Decision:
        """Decide, check, store, and let sites hold what they are assigned."""
        before = self.rollout
        fleet = list(self.sites.values())
        decision = decide_rollout(before, fleet, now=self.now)
        assert decide_rollout(before, fleet[::-1], now=self.now) == decision, "the order of sites decides"
        self._check(before, decision)
        for effect in decision.effects:
            release = effect.release if isinstance(effect, Assign) else ""
            if release == NEW:
                self.offered.append(effect.site)
            by = "second" if release == NEW else "first"
            site = self.sites[effect.site]
            hosts = tuple(msgspec.structs.replace(host, holds_offer=False) for host in site.hosts)
            self.sites[effect.site] = msgspec.structs.replace(
                site, assigned=release, assigned_by=by, hosts=hosts
            )
        self.rollout = msgspec.structs.replace(
            before,
            state=decision.state,
            sites=decision.sites,
            progress=decision.waves,
            halt=decision.halt,
        )
        return decision

    def settle(self, *, steps: int = 40) -> Decision:
        """Let everybody who is reachable do what it has to, until nothing changes any more."""
        decision = self.decide()
        for _ in range(steps):
            for name in self.sites:
                self.work(name)
            before, decision = decision, self.decide()
            if decision.wake_at is not None and not decision.effects and decision == before:
                self.now = max(self.now, decision.wake_at)
            self.now += timedelta(seconds=1)
            if decision.state in ENDED:
                break
        return decision

    def work(self, name: str) -> None:
        """Let a site's host do all it has to for what it is assigned, if it is reachable."""
        site = self.sites[name]
        if not site.reachable:
            return
        bad = site.assigned == NEW and self.behaviours[name] == "bad"
        changes: dict[str, object] = {"holds_offer": True, "candidate": "", "stage": "", "as_of": self.now}
        changes |= {"refused": "probe failed"} if bad else {"running": site.assigned, "refused": ""}
        self.host(name, **changes)

    def host(self, name: str, **changes: object) -> None:
        """Let a site's host say something."""
        site = self.sites[name]
        host = msgspec.structs.replace(site.hosts[0], **changes)
        self.sites[name] = msgspec.structs.replace(site, hosts=(host,))

    def reach(self, name: str, reachable: bool) -> None:
        """Let a site fall silent, or be heard again."""
        self.sites[name] = msgspec.structs.replace(self.sites[name], reachable=reachable)

    def put(self, **changes: Any) -> None:
        """Change what is stored of the rollout."""
        self.rollout = msgspec.structs.replace(self.rollout, **changes)

    def control(self, **changes: Any) -> None:
        """Let a person say something."""
        control = msgspec.structs.replace(self.rollout.control, **changes)
        self.rollout = msgspec.structs.replace(self.rollout, control=control)

    def state(self, name: str) -> SiteRolloutState:
        """Return where a site is."""
        return self.rollout.sites[name].state

    def states(self) -> Counter[str]:
        """Count the sites by state."""
        return Counter(progress.state for progress in self.rollout.sites.values())

    def _check(self, before: RolloutFact, decision: Decision) -> None:
        for name, progress in decision.sites.items():
            was = before.sites[name].state if name in before.sites else "pending"
            assert progress.state == was or _in_two(was, progress.state), (name, was, progress.state)
        new = {e.site for e in decision.effects if isinstance(e, Assign) and e.release == NEW}
        stopped = before.halt or before.control.paused or before.control.aborted or before.state in ENDED
        assert not (stopped and new), "something new starts after a halt, a pause or an abort"
        for name in new:
            progress = decision.sites[name]
            assert self.sites[name].reachable
            assert before.sites.get(name) is None or before.sites[name].state in ("pending", "unreachable")
            for wave in decision.waves[: progress.wave]:
                assert wave.state == "passed", "a wave starts before the one before it has passed"
        for name, progress in decision.sites.items():
            if name in self.sites and not self.sites[name].reachable and name in before.sites:
                was = before.sites[name].state
                assert progress.state == was or progress.state not in ("failed", "succeeded")
        self._check_budgets(decision, {effect.site for effect in decision.effects})

    def _check_budgets(self, decision: Decision, moved: set[str]) -> None:
        """Check the waves in which something begins; sites that fell silent at work may come back to a full one."""
        begun = {decision.sites[name].wave for name in moved if decision.sites[name].state in AT_WORK}
        members = Counter(progress.wave for progress in decision.sites.values())
        busy = Counter(p.wave for p in decision.sites.values() if p.state in AT_WORK)
        for number, plan in enumerate(self.rollout.waves):
            if number not in begun:
                continue
            limit = max(1, plan.max_in_flight.of(members[number]))
            assert busy[number] <= limit, f"{busy[number]} at work in {plan.name}, {limit} may be"
            if plan.group:
                of = {name: self.sites[name].labels.get(plan.group, "") for name in decision.sites}
                inside = Counter(of[n] for n, p in decision.sites.items() if p.wave == number)
                at_work = Counter(
                    of[n] for n, p in decision.sites.items() if p.wave == number and p.state in AT_WORK
                )
                for group, count in at_work.items():
                    assert count <= max(1, plan.group_limit.of(inside[group])), f"too many in {group}"


def _in_two(old: SiteRolloutState, new: SiteRolloutState) -> bool:
    """One decision may take two legal steps, such as applying, then taken back."""
    return new in LEGAL_STEPS[old] or any(new in LEGAL_STEPS[middle] for middle in LEGAL_STEPS[old])


__all__ = ["CANARY", "NEW", "NOW", "OLD", "ONE", "STAGES", "Control", "RolloutWorld"]
