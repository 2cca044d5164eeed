"""One decision about one rollout: what is offered to whom now, what is taken back, and why nothing else is.

Pure, total and deterministic: the same facts give the same decision, in whatever order sites are listed. Rules (docs/
rules): no wave begins before the one before it has passed; what may be in flight is never exceeded; after a halt, a
pause or an abort nothing new is offered; a silent site is neither failed nor succeeded; what was aborted, revoked or
superseded is taken back from whoever has not switched to it, also from those that are away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.rollout.facts import Amount, Assign, Decision, Effect, RolloutFact, SiteFact, Unassign, Verdict
from skerry.rollout.states import AT_WORK, BY_HAND, UNFINISHED, is_back, observe_site
from skerry.rollout.waves import Room, draw_members, judge_wave, tally
from skerry.spec.api_rollout import Halt, RolloutState, SiteProgress, SiteRolloutState, WaveProgress

ENDED: frozenset[RolloutState] = frozenset({"succeeded", "failed", "aborted", "superseded"})
NOT_SWITCHED = frozenset({"offered", "downloading", "ready", "waiting_window", "held"})
"""The old release still runs: taking the new one back interrupts nothing."""

_replace = msgspec.structs.replace


def decide_rollout(rollout: RolloutFact, fleet: Sequence[SiteFact], *, now: datetime) -> Decision:
    """Return the decision for a rollout over the sites its selector names now."""
    if rollout.state in ENDED:
        return Decision(
            state=rollout.state,
            why="it has ended",
            sites=rollout.sites,
            waves=rollout.progress,
            halt=rollout.halt,
        )
    return _Run(rollout, fleet, now).decide()


def retry_rollout(
    rollout: RolloutFact, now: datetime
) -> tuple[Mapping[str, SiteProgress], tuple[WaveProgress, ...]]:
    """Return sites and waves of a rollout as they stand when a person asks to try again where it did not succeed."""
    sites = {
        name: _replace(progress, state="pending", why="to be tried again", going_back=False)
        if progress.state in ("failed", "rolled_back", "pending")
        else progress
        for name, progress in rollout.sites.items()
    }
    waves = tuple(
        _replace(wave, state="running", began_at=now, settled_at=None)
        if wave.state in ("running", "soaking")
        else wave
        for wave in rollout.progress
    )
    return sites, waves


class _Run:
    """One call: collects effects, and where everything stands then."""

    def __init__(self, rollout: RolloutFact, fleet: Sequence[SiteFact], now: datetime) -> None:
        self.rollout = rollout
        self.now = now
        self.fleet = {site.name: site for site in sorted(fleet, key=lambda site: site.name)}
        self.sites: dict[str, SiteProgress] = dict(rollout.sites)
        self.waves = list(rollout.progress) or [
            WaveProgress(name=plan.name or f"wave {number + 1}") for number, plan in enumerate(rollout.waves)
        ]
        self.halt = rollout.halt
        self.effects: list[Effect] = []
        self.given: set[str] = set()
        self.wakes: list[datetime] = []

    def decide(self) -> Decision:
        for name, site in self.fleet.items():
            self.sites[name] = self._observe(site, self.sites.get(name))
        self._consider_halt()
        control = self.rollout.control
        if control.aborted == "keep":
            self._take_back()
            return self._conclude("aborted", "aborted: sites that had switched keep it")
        if control.aborted == "revert" or (self.halt is not None and self.halt.then == "rollback"):
            return self._go_back()
        if why := self._withheld():
            return self._conclude("paused" if self._is_paused() else "running", why)
        self._advance()
        return self._finish()

    # ── seeing ───────────────────────────────────────────────────────────────────────────────────────

    def _observe(self, site: SiteFact, before: SiteProgress | None) -> SiteProgress:
        if before is None:
            before = SiteProgress(state="pending", why="not offered yet", as_of=self.now)
        if before.state == "superseded":
            return before
        if site.taken_by and before.state in UNFINISHED:
            why = f"by {site.taken_by}"
            return _replace(before, state="superseded", why=why, as_of=self.now, going_back=False)
        if before.going_back:
            return self._observe_going_back(site, before)
        ours = site.assigned == self.rollout.release and site.assigned_by == self.rollout.name
        if before.state in ("failed", "rolled_back") or (not ours and before.state in AT_WORK):
            return before
        if not ours:
            return self._observe_waiting(site, before)
        if before.state == "succeeded" and not site.reachable:
            return before  # it had succeeded when it was last heard of
        state, why, as_of = observe_site(self.rollout.release, site)
        if (state, why) == (before.state, before.why):
            return before
        return _replace(before, state=state, why=why, as_of=as_of or before.as_of)

    def _observe_waiting(self, site: SiteFact, before: SiteProgress) -> SiteProgress:
        if before.state == "pending" and not site.reachable and not site.by_hand:
            why = "not heard of for longer than its tolerance; it follows when it is back"
            return _replace(before, state="unreachable", why=why, as_of=self.now)
        if before.state == "unreachable" and (site.reachable or site.by_hand):
            return _replace(before, state="pending", why="back, and not offered yet", as_of=self.now)
        return before

    def _observe_going_back(self, site: SiteFact, before: SiteProgress) -> SiteProgress:
        as_of = max((host.as_of for host in site.hosts if host.as_of), default=before.as_of)
        if is_back(site, before.previous):
            why = f"runs {before.previous} again" if before.previous else "the application is gone again"
            return _replace(before, state="rolled_back", why=why, as_of=as_of, going_back=False)
        if not site.reachable:
            why = "not heard of; it goes back as soon as it hears of it"
            return _replace(before, state="unreachable", why=why)
        return _replace(before, state="applying", why=_back(before.previous), as_of=as_of)

    # ── stopping ─────────────────────────────────────────────────────────────────────────────────────

    def _consider_halt(self) -> None:
        """Halt when there is a reason to and it is not halted yet; going back outranks a pause."""
        if self.halt is not None and self.halt.then == "rollback":
            return
        if self.rollout.revoked:
            self.halt = Halt(why=self.rollout.revoked, at=self.now, then="rollback")
        elif self.halt is None and self.rollout.on_failure != "continue" and (why := self._failure()):
            self.halt = Halt(
                why=why, at=self.now, then="pause" if self.rollout.on_failure == "pause" else "rollback"
            )

    def _failure(self) -> str:
        """Return what speaks against going on: too many failed sites, or a gate."""
        forgiven = set(self.rollout.control.forgiven)
        failed = [
            name for name, one in sorted(self.sites.items()) if one.state == "failed" and name not in forgiven
        ]
        if len(failed) > _allowed(self.rollout.failure_budget, len(self.sites)):
            return (
                f"{len(failed)} of {len(self.sites)} sites failed ({failed[0]}: {self.sites[failed[0]].why})"
            )
        for number, verdict in sorted(self.rollout.verdicts.items()):
            if verdict.outcome == "fail" and number < len(self.waves) and self.waves[number].began_at:
                return f"a gate failed in {self.waves[number].name}: {verdict.why}"
        return ""

    def _is_paused(self) -> bool:
        return bool(self.rollout.control.paused) or self.halt is not None

    def _withheld(self) -> str:
        """Return why nothing is offered now; empty when it may be."""
        rollout = self.rollout
        if rollout.control.paused:
            return f"paused: {rollout.control.paused}"
        if self.halt is not None:
            return f"paused: {self.halt.why}"
        if self.sites and not any(progress.state in UNFINISHED for progress in self.sites.values()):
            return ""
        if rollout.begin_at is not None and self.now < rollout.begin_at:
            self.wakes.append(rollout.begin_at)
            return f"begins at {rollout.begin_at:%Y-%m-%d %H:%M:%S %Z}"
        if rollout.blocked and any(progress.state == "pending" for progress in self.sites.values()):
            return f"{self._counts()}; offered to no further site: {rollout.blocked}"
        return ""

    def _take_back(self) -> None:
        """Take the release from every site that has not switched to it, those that are away among them."""
        for name, site in self.fleet.items():
            progress = self.sites[name]
            if not self._has_ours(site) or progress.going_back:
                continue
            if progress.state in NOT_SWITCHED or progress.state == "failed" or not site.reachable:
                if progress.state == "succeeded" or (not site.reachable and self._has_switched(site)):
                    continue
                self._give_back(site, progress)
                if progress.state != "failed":
                    state = "pending" if site.reachable else "unreachable"
                    self.sites[name] = _replace(progress, state=state, why="taken back", as_of=self.now)

    def _go_back(self) -> Decision:
        """Take the release back from everybody: at once where nothing is interrupted, else as budgets allow."""
        self._take_back()
        room = Room(self.rollout.waves, self.sites, self.fleet)
        for name, site in self.fleet.items():
            progress = self.sites[name]
            if progress.state == "superseded" or progress.going_back or not self._is_to_go_back(site, name):
                continue
            # What is at work already is counted already.
            if progress.state in AT_WORK or not site.reachable or room.take(site, max(progress.wave, 0)):
                self._give_back(site, progress)
                state = "applying" if site.reachable else "unreachable"
                self.sites[name] = _replace(
                    progress, state=state, why=_back(progress.previous), as_of=self.now, going_back=True
                )
        left = [
            name
            for name, site in self.fleet.items()
            if self._is_to_go_back(site, name) or (self.sites[name].going_back and site.reachable)
        ]
        why = "aborted" if self.rollout.control.aborted else f"halted: {self.halt.why if self.halt else ''}"
        if left:
            return self._conclude("reverting", f"{why}; {len(left)} sites are going back")
        return self._conclude("aborted" if self.rollout.control.aborted else "failed", why)

    def _is_to_go_back(self, site: SiteFact, name: str) -> bool:
        return self._has_ours(site) and name not in self.given and self.sites[name].state != "superseded"

    def _has_ours(self, site: SiteFact) -> bool:
        return site.assigned == self.rollout.release and site.assigned_by == self.rollout.name

    def _has_switched(self, site: SiteFact) -> bool:
        """Tell whether a host of the site had gone over to the new release when it was last heard of."""
        release = self.rollout.release
        return any(host.running == release or host.stage in ("applying", "soaking") for host in site.hosts)

    def _give_back(self, site: SiteFact, progress: SiteProgress) -> None:
        self.given.add(site.name)
        if progress.previous:
            self.effects.append(Assign(site.name, progress.previous))
        else:
            self.effects.append(Unassign(site.name))

    # ── going on ─────────────────────────────────────────────────────────────────────────────────────

    def _advance(self) -> None:
        """Begin the waves whose turn it is, offer what there is room for, and see which waves have passed."""
        total = sum(progress.state != "superseded" for progress in self.sites.values())
        for number in range(len(self.rollout.waves)):
            if self.waves[number].state == "waiting" and not self._begin(number, total):
                break
            self._offer(number)
            if self.waves[number].state != "passed" and not self._judge(number):
                break

    def _begin(self, number: int, total: int) -> bool:
        """Begin a wave, unless somebody has to approve it first; draw its members."""
        plan = self.rollout.waves[number]
        free = [site for name, site in self.fleet.items() if self.sites[name].wave < 0]
        if plan.manual and number not in self.rollout.control.approved:
            self.waves[number] = _replace(self.waves[number], why="waits for approval")
            return False
        for site in draw_members(self.rollout.name, number, plan, free, total):
            self.sites[site.name] = _replace(self.sites[site.name], wave=number)
        self.waves[number] = _replace(self.waves[number], state="running", began_at=self.now, why="")
        return True

    def _offer(self, number: int) -> None:
        """Offer the release to members as far as there is room; whoever is not reachable waits until it is."""
        last = number == len(self.waves) - 1
        waiting: list[SiteFact] = []
        for name, site in self.fleet.items():
            progress = self.sites[name]
            if last and progress.wave < 0:  # a site that was made meanwhile
                progress = self.sites[name] = _replace(progress, wave=number)
            if progress.wave != number or progress.state != "pending":
                continue
            if site.reachable:
                waiting.append(site)
            elif site.by_hand:
                # Nobody knows when it is at work: it takes no room, and its wave does not wait for it.
                self._give(site, "unreachable", BY_HAND)
        if not waiting:
            return
        room = Room(self.rollout.waves, self.sites, self.fleet)
        for site in waiting:
            if not room.take(site, number):
                if not self.rollout.waves[number].group:
                    break
                continue
            self._give(site, "offered", "queued")

    def _give(self, site: SiteFact, state: SiteRolloutState, why: str) -> None:
        """Offer the release to a site."""
        progress = self.sites[site.name]
        previous = site.assigned if site.assigned != self.rollout.release else progress.previous
        self.sites[site.name] = _replace(progress, state=state, why=why, as_of=self.now, previous=previous)
        self.effects.append(Assign(site.name, self.rollout.release))

    def _judge(self, number: int) -> bool:
        """Tell whether a wave has passed."""
        plan, wave = self.rollout.waves[number], self.waves[number]
        count = tally(self.sites, len(self.waves))[number]
        if count.members == 0:
            self.waves[number] = _replace(
                wave, state="passed", passed_at=self.now, why="no site is left for it"
            )
            return True
        unjudged = Verdict("inconclusive") if self.rollout.gated else Verdict()
        verdict = self.rollout.verdicts.get(number, unjudged)
        if not self.rollout.gated and all(one.wave >= 0 for one in self.sites.values()):
            plan = _replace(plan, soak_s=0.0)  # nobody is left for whom to wait
        self.waves[number], again = judge_wave(plan, wave, count, verdict, self.now)
        if again is not None:
            self.wakes.append(again)
        return self.waves[number].state == "passed"

    def _finish(self) -> Decision:
        left = [one for one in self.sites.values() if one.state in UNFINISHED]
        if not self.sites:
            return self._conclude("running", "no site matches yet")
        if all(one.state == "superseded" for one in self.sites.values()):
            return self._conclude("superseded", "a newer rollout has every site")
        if any(wave.state != "passed" for wave in self.waves):
            current = next(wave for wave in self.waves if wave.state != "passed")
            return self._conclude("running", f"{current.name}: {current.why or self._counts()}")
        if left:
            why = f"all waves have passed; {len(left)} sites follow when they are heard of"
            return self._conclude("running", why)
        return self._conclude("succeeded", self._counts())

    def _conclude(self, state: RolloutState, why: str) -> Decision:
        return Decision(
            state=state,
            why=why,
            sites=self.sites,
            waves=tuple(self.waves),
            halt=self.halt,
            effects=tuple(self.effects),
            wake_at=min(self.wakes, default=None) if state not in ENDED else None,
        )

    def _counts(self) -> str:
        counts: dict[str, int] = {}
        for progress in self.sites.values():
            counts[progress.state] = counts.get(progress.state, 0) + 1
        return (
            ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no site matches yet"
        )


def _allowed(budget: Amount, sites: int) -> int:
    """Return how many sites may fail; a share is rounded down."""
    return budget.count if budget.share is None else int(sites * budget.share)


def _back(previous: str) -> str:
    return f"going back to {previous}" if previous else "the application is taken away again"
