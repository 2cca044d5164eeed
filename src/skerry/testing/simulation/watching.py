"""What must never happen in a rollout, checked at each decision and at each host that learns of one.

The promises are those of docs/rules. A site that was away while others took its place may go on when it is back, so
what is in flight is held against the budget whenever something is offered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from skerry.kit.errors import Bug
from skerry.rollout.decide import ENDED
from skerry.rollout.facts import Assign, Decision, RolloutFact, SiteFact
from skerry.rollout.states import AT_WORK, LEGAL_STEPS
from skerry.spec.api_rollout import SiteRolloutState


class Watch:
    """Compares each decision with what was promised."""

    def __init__(self, release: str) -> None:
        self._release = release

    def check_decision(
        self, rollout: RolloutFact, fleet: Mapping[str, SiteFact], decision: Decision, now: datetime
    ) -> None:
        """Return if a decision keeps the promises.

        Raises:
            Bug: it breaks one (`simulation.violation`).
        """
        offered = [e.site for e in decision.effects if isinstance(e, Assign) and e.release == self._release]
        stopped = rollout.halt or rollout.control.paused or rollout.control.aborted or rollout.state in ENDED
        if offered and (stopped or decision.halt):
            _violated(now, "a site is offered the release after a halt, a pause or an abort", offered[0])
        for name in offered:
            for wave in decision.waves[: decision.sites[name].wave]:
                if wave.state != "passed":
                    _violated(now, f"a wave begins before {wave.name} has passed", name)
            if not fleet[name].reachable:
                _violated(now, "a site that is not reachable is offered the release", name)
        for name, progress in decision.sites.items():
            before = rollout.sites.get(name)
            if before is progress:
                continue
            was = before.state if before is not None else "pending"
            if was != progress.state and not _in_two(was, progress.state):
                _violated(now, f"{was} is followed by {progress.state}", name)
            silent = name in fleet and not fleet[name].reachable
            if silent and was != progress.state and not self._said_so(fleet[name], progress.state):
                _violated(now, f"a silent site counts as {progress.state}", name)
        if offered:
            self._check_budgets(rollout, fleet, decision, offered, now)

    def check_learning(self, rollout: RolloutFact, site: SiteFact, learnt: str, now: datetime) -> None:
        """Return if a site may learn now that it is to run `learnt`.

        Raises:
            Bug: it meets the release that was taken back (`simulation.violation`).
        """
        back = rollout.control.aborted or (rollout.halt is not None and rollout.halt.then == "rollback")
        if back and learnt == self._release:
            _violated(now, "a site that was away meets a release that was taken back", site.name)

    def _said_so(self, site: SiteFact, state: SiteRolloutState) -> bool:
        """Tell whether a site said before it fell silent that it succeeded or failed; silence says neither."""
        if state == "failed":
            return bool(site.unfit) or any(host.refused for host in site.hosts)
        return state != "succeeded" or any(host.running == self._release for host in site.hosts)

    def _check_budgets(
        self,
        rollout: RolloutFact,
        fleet: Mapping[str, SiteFact],
        decision: Decision,
        offered: Sequence[str],
        now: datetime,
    ) -> None:
        members: Counter[tuple[int, str]] = Counter()
        busy: Counter[tuple[int, str]] = Counter()
        for name, progress in decision.sites.items():
            for key in _budgets(rollout, fleet, name, progress.wave):
                members[key] += 1
                busy[key] += progress.state in AT_WORK
        for name in offered:
            for key in _budgets(rollout, fleet, name, decision.sites[name].wave):
                plan = rollout.waves[key[0]]
                limit = max(1, (plan.group_limit if key[1] else plan.max_in_flight).of(members[key]))
                if busy[key] > limit:
                    where = f" of {key[1]}" if key[1] else ""
                    _violated(
                        now, f"{busy[key]} sites{where} are at work in {plan.name}, {limit} may be", name
                    )


def _budgets(
    rollout: RolloutFact, fleet: Mapping[str, SiteFact], name: str, wave: int
) -> Iterator[tuple[int, str]]:
    """Yield what a site counts against: its wave as a whole, and its group there."""
    if 0 <= wave < len(rollout.waves):
        yield wave, ""
        if (label := rollout.waves[wave].group) and name in fleet:
            yield wave, f"{label}={fleet[name].labels.get(label, '')}"


def _in_two(old: SiteRolloutState, new: SiteRolloutState) -> bool:
    """One decision may take two legal steps, such as applying, then taken back."""
    return new in LEGAL_STEPS[old] or any(new in LEGAL_STEPS[middle] for middle in LEGAL_STEPS[old])


def _violated(now: datetime, what: str, site: str) -> NoReturn:
    where = f" ({site})" if site else ""
    raise Bug(
        "simulation.violation",
        f"{now:%Y-%m-%d %H:%M:%SZ}{where}: {what}",
        hint="a promise of rollouts is broken: please report it with the documents and the seed",
        site=site,
        at=now.isoformat(),
    )
