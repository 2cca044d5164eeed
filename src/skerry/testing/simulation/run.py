"""One simulation: sites and hosts on an agenda, and a hub that decides as the real one does.

The hub decides soon after something that may change what is offered, and at times after what only moves a site on. It
records each decision with a digest of what went into it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec

from skerry.kit.errors import Rejected
from skerry.kit.quantities import parse_duration
from skerry.matching.selector import parse_selector
from skerry.rollout.decide import ENDED, decide_rollout
from skerry.rollout.facts import Assign, Decision, RolloutFact, SiteFact
from skerry.rollout.reading import read_amount, read_waves, waves_of
from skerry.rollout.states import UNFINISHED
from skerry.spec.api_rollout import SiteProgress
from skerry.spec.rollout import Rollout
from skerry.testing.simulation.agenda import Agenda
from skerry.testing.simulation.documents import ScenarioSpec
from skerry.testing.simulation.evidence import LOOK_S, UNMEASURED, Evidence, Source
from skerry.testing.simulation.fleet import SitePlan
from skerry.testing.simulation.hosts import Steps, digests_of
from skerry.testing.simulation.results import (
    DecisionRecord,
    Moment,
    SimulationResult,
    WaveResult,
    groups_of,
    milestones_of,
    relays_of,
)
from skerry.testing.simulation.sites import SimulatedSite, Surroundings, Wanted
from skerry.testing.simulation.watching import Watch

SOON_S = 0.2
REST_S = 20.0
"""Between two decisions that something urgent asks for."""
LATER_S = 600.0
"""After something that changes nothing for other sites."""
MAX_MOMENTS = 600

Recorder = Callable[[RolloutFact, Sequence[SiteFact], datetime, Decision], None]


class Premises(msgspec.Struct, frozen=True, kw_only=True):
    """What a simulation goes by. `assumptions` are told with the result."""

    rollout: Rollout
    fleet: Sequence[SitePlan]
    scenario: ScenarioSpec
    seed: int
    starts_at: datetime
    forecast: bool = False
    assumptions: tuple[str, ...] = ()


def simulate(premises: Premises, recorder: Recorder | None = None) -> SimulationResult:
    """Return what comes of a rollout; `recorder` is handed each decision and all that went into it.

    Raises:
        Rejected: the rollout selects no site of the fleet, or a selector is malformed.
        Bug: a promise of rollouts was broken (`simulation.violation`).
    """
    return _Simulation(premises, recorder).run()


class _Simulation:
    """The hub's side, and the result."""

    def __init__(self, premises: Premises, recorder: Recorder | None) -> None:
        self._premises = premises
        self._recorder = recorder
        spec, scenario = premises.rollout.spec, premises.scenario
        self._agenda = Agenda(parse_duration(scenario.duration))
        measured = {(metric.name, metric.kind) for metric in scenario.metrics}
        self._gates = [gate for gate in spec.gates if (gate.metric, gate.kind) in measured]
        plans = _selected(premises)
        previous = {plan.previous for plan in plans}
        self._steps = Steps(
            application=spec.release.partition("@")[0],
            new=spec.release,
            digests=digests_of(spec.release, *sorted(previous)),
            prepare_s=parse_duration(scenario.release.prepare),
            self_test_s=parse_duration(scenario.release.self_test),
            start_s=parse_duration(scenario.release.start),
        )
        self._fleet: dict[str, SiteFact] = {}
        self._watch = Watch(spec.release)
        self._fact = RolloutFact(
            name=premises.rollout.metadata.name,
            release=spec.release,
            waves=read_waves(spec),
            on_failure=spec.on_failure,
            failure_budget=read_amount(spec.failure_budget),
            begin_at=spec.begin_at,
            # Until the gates have looked, no wave passes.
            verdicts=dict.fromkeys(range(len(waves_of(spec))), UNMEASURED) if self._gates else {},
        )
        self._evidence = Evidence(self._gates, scenario.metrics, premises.seed, premises.starts_at)
        self._chain = hashlib.sha256(msgspec.json.encode(self._fact))
        self._due: tuple[float, int] | None = None
        self._deciding = 0
        self._last_s = -REST_S
        self._changed: dict[str, SiteFact] = {}
        self._approving: set[int] = set()
        self._decisions = 0
        self._why = ""
        self._records: list[DecisionRecord] = []
        self._moments: list[Moment] = []
        self._ended_s: float | None = None
        around = self._surroundings()
        self._sites = {plan.name: SimulatedSite(plan, around) for plan in sorted(plans, key=lambda p: p.name)}

    def _surroundings(self) -> Surroundings:
        spec = self._premises.rollout.spec
        selectors = [parse_selector(wave.sites or "*") for wave in waves_of(spec)]

        def waves_of_site(plan: SitePlan) -> int:
            return sum(
                1 << number for number, one in enumerate(selectors) if one.matches(plan.name, plan.labels)
            )

        return Surroundings(
            agenda=self._agenda,
            steps=self._steps,
            starts_at=self._premises.starts_at,
            seed=self._premises.seed,
            deadline_s=parse_duration(spec.health.deadline),
            soak_s=parse_duration(spec.health.soak),
            urgent=spec.urgent,
            waves_of=waves_of_site,
            heard=self._heard,
            on_learning=self._on_learning,
        )

    def run(self) -> SimulationResult:
        """Let everything happen, and say what came of it."""
        scenario = self._premises.scenario
        for site in self._sites.values():
            self._refresh(site)
        self._decide_at(0.0)
        if scenario.abort_after is not None:
            self._agenda.at(parse_duration(scenario.abort_after), self._abort)
        if self._gates:
            self._agenda.at(LOOK_S, self._look)
        self._agenda.run()
        return self._result()

    # ── what the hub hears ───────────────────────────────────────────────────────────────────────────

    def _now(self) -> datetime:
        return self._premises.starts_at + timedelta(seconds=self._agenda.now_s)

    def _refresh(self, site: SimulatedSite) -> SiteFact:
        fact = site.fact()
        self._fleet[site.plan.name] = self._changed[site.plan.name] = fact
        return fact

    def _heard(self, site: SimulatedSite) -> None:
        """A site reported or fell silent: decide again if that can make a difference, and soon if for others."""
        name = site.plan.name
        before = self._fleet[name]
        fact = self._refresh(site)
        if self._fact.state in ENDED:
            return
        progress = self._fact.sites.get(name)
        back = fact.reachable and not before.reachable
        failed = any(host.refused for host in fact.hosts)
        reverting = self._fact.state == "reverting"
        if not (reverting or progress is None or progress.state in UNFINISHED or progress.going_back):
            return  # succeeded, failed, gone back or superseded: it stays so
        passed = bool(self._fact.progress) and all(wave.state == "passed" for wave in self._fact.progress)
        if back or failed or reverting or not passed:
            self._decide_at(max(self._agenda.now_s + SOON_S, self._last_s + REST_S))
        else:
            self._decide_at(self._last_s + LATER_S)

    def _on_learning(self, site: SimulatedSite, wanted: Wanted) -> None:
        self._watch.check_learning(self._fact, self._fleet[site.plan.name], wanted.release, self._now())

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────────

    def _decide_at(self, when_s: float) -> None:
        when_s = max(when_s, self._agenda.now_s)
        if self._due is None or when_s < self._due[0]:
            self._deciding += 1
            self._due = (when_s, self._deciding)
            self._agenda.at(when_s, partial(self._decide, self._deciding))

    def _decide(self, number: int) -> None:
        if number != self._deciding or self._fact.state in ENDED:
            return
        self._due = None
        self._last_s = self._agenda.now_s
        now, fact, fleet = self._now(), self._fact, list(self._fleet.values())
        decision = decide_rollout(fact, fleet, now=now)
        self._watch.check_decision(fact, self._fleet, decision, now)
        if self._recorder is not None:
            self._recorder(fact, fleet, now, decision)
        self._record(decision, now)
        self._fact = msgspec.structs.replace(
            fact,
            state=decision.state,
            sites=decision.sites,
            progress=decision.waves,
            halt=decision.halt,
        )
        for effect in decision.effects:
            site = self._sites[effect.site]
            release = effect.release if isinstance(effect, Assign) else ""
            by = fact.name if release == fact.release else "before" if release else ""
            site.assign(release, by)
            self._refresh(site)
        self._approve(decision)
        if decision.state in ENDED:
            self._ended_s = self._agenda.now_s
        elif decision.wake_at is not None:
            self._decide_at((decision.wake_at - self._premises.starts_at).total_seconds())

    def _record(self, decision: Decision, now: datetime) -> None:
        """Record the decision: inputs are what changed since the one before, whose own are in the digest already."""
        fact = self._fact
        inputs = (now, self._changed, fact.control, fact.verdicts)
        self._changed = {}
        self._chain.update(msgspec.json.encode(inputs))
        wave = next((wave.name for wave in decision.waves if wave.state != "passed"), "")
        record = DecisionRecord(
            at_s=round(self._agenda.now_s, 3),
            inputs=self._chain.hexdigest(),
            state=decision.state,
            why=decision.why,
            effects=len(decision.effects),
            wave=wave,
        )
        self._chain.update(msgspec.json.encode((decision.state, decision.why, decision.effects)))
        self._decisions += 1
        last = self._records[-1] if self._records else None
        if last is None or record.effects or (last.state, last.wave) != (record.state, record.wave):
            self._records.append(record)
        self._why = decision.why
        self._note_moment(_counts(decision.sites.values()))

    def _note_moment(self, states: dict[str, int]) -> None:
        if self._moments and self._moments[-1].states == states:
            return
        self._moments.append(Moment(at_s=round(self._agenda.now_s, 3), states=states))

    # ── what people do, and what is measured ─────────────────────────────────────────────────────────

    def _approve(self, decision: Decision) -> None:
        after = self._premises.scenario.approve_after
        waiting = next((n for n, wave in enumerate(decision.waves) if wave.state != "passed"), None)
        if after is None or waiting is None or waiting in self._approving:
            return
        if self._fact.waves[waiting].manual and decision.waves[waiting].state == "waiting":
            self._approving.add(waiting)
            self._agenda.after(parse_duration(after), partial(self._say, approved=waiting))

    def _say(self, *, approved: int) -> None:
        control = self._fact.control
        said = msgspec.structs.replace(control, approved=(*control.approved, approved))
        self._fact = msgspec.structs.replace(self._fact, control=said)
        self._decide_at(self._agenda.now_s)

    def _abort(self) -> None:
        if self._fact.state not in ENDED:
            said = msgspec.structs.replace(self._fact.control, aborted=self._premises.scenario.abort)
            self._fact = msgspec.structs.replace(self._fact, control=said)
            self._decide_at(self._agenda.now_s)

    def _look(self) -> None:
        """Let the gates judge each wave that is not over."""
        if self._fact.state in ENDED:
            return
        verdicts = dict(self._fact.verdicts)
        for number, wave in enumerate(self._fact.progress):
            if wave.state in ("running", "soaking"):
                new, old = self._sources(number)
                verdicts[number] = self._evidence.look(number, new, old, self._now())
        if verdicts != self._fact.verdicts:
            self._fact = msgspec.structs.replace(self._fact, verdicts=verdicts)
            self._decide_at(self._agenda.now_s)
        self._agenda.after(LOOK_S, self._look)

    def _sources(self, number: int) -> tuple[list[Source], list[Source]]:
        """Return the sites of a wave that run the new release, and those of the fleet that run the old; all online."""
        new: list[Source] = []
        old: list[Source] = []
        for name, progress in self._fact.sites.items():
            site = self._sites[name]
            if site.online:
                source = (name, site.plan.labels.get("hardware", ""))
                if site.done_at_s is None:
                    old.append(source)
                elif progress.wave == number:
                    new.append(source)
        return new, old

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────

    def _result(self) -> SimulationResult:
        premises = self._premises
        sites = [self._sites[plan.name] for plan in premises.fleet if plan.name in self._sites]
        begin_at = premises.rollout.spec.begin_at
        begin_s = max(0.0, (begin_at - premises.starts_at).total_seconds()) if begin_at else 0.0
        bad = [site for site in sites if any(h.behaviour != "healthy" for h in site.plan.hosts)]
        return SimulationResult(
            rollout=self._fact.name,
            release=self._fact.release,
            seed=premises.seed,
            forecast=premises.forecast,
            assumptions=(*premises.assumptions, *self._taken_to_pass()),
            starts_at=premises.starts_at,
            duration_s=self._agenda.end_s,
            state=self._fact.state,
            why=self._why,
            ended_s=self._ended_s,
            sites=len(sites),
            hosts=sum(len(site.hosts) for site in sites),
            all=milestones_of(sites, begin_s),
            reachable=milestones_of([site for site in sites if site.ever_online], begin_s),
            exposed=sum(site.exposed_at_s is not None for site in sites),
            bad=len(bad),
            exposed_bad=sum(site.exposed_at_s is not None for site in bad),
            fetched_bytes=sum(site.fetched_bytes.total() for site in sites),
            states=_counts(self._fact.sites.values()),
            groups=groups_of(sites, begin_s),
            relays=relays_of(sites),
            waves=self._waves(),
            decisions_made=self._decisions,
            decisions=tuple(self._records),
            digest=self._chain.hexdigest(),
            timeline=_thinned(self._moments),
            events=self._agenda.events,
        )

    def _taken_to_pass(self) -> list[str]:
        gates = self._premises.rollout.spec.gates
        names = sorted({f"{gate.metric} ({gate.kind})" for gate in gates if gate not in self._gates})
        return [f"the gate of {name} passes: the scenario does not say what hosts measure" for name in names]

    def _waves(self) -> tuple[WaveResult, ...]:
        def seconds(at: datetime | None) -> float | None:
            return round((at - self._premises.starts_at).total_seconds(), 3) if at else None

        return tuple(
            WaveResult(
                name=wave.name,
                state=wave.state,
                why=wave.why,
                members=wave.members,
                began_s=seconds(wave.began_at),
                passed_s=seconds(wave.passed_at),
            )
            for wave in self._fact.progress
        )


def _selected(premises: Premises) -> list[SitePlan]:
    """Return the sites that the rollout selects.

    Raises:
        Rejected: there is none (`simulation.no_sites`).
    """
    text = premises.rollout.spec.sites
    selector = parse_selector(text)
    found = [plan for plan in premises.fleet if selector.matches(plan.name, plan.labels)]
    if not found:
        labels = sorted({f"{key}={value}" for plan in premises.fleet for key, value in plan.labels.items()})
        hint = f"labels there: {', '.join(labels[:12])}" if labels else "its sites have no labels"
        raise Rejected("simulation.no_sites", f"no site of the fleet matches {text}", hint=hint)
    return found


def _counts(sites: Iterable[SiteProgress]) -> dict[str, int]:
    return dict(sorted(Counter(progress.state for progress in sites).items()))


def _thinned(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """Return the course in no more moments than a plot shows, the first and the last among them."""
    step = max(1, -(-len(moments) // MAX_MOMENTS))
    kept = list(moments[::step])
    if moments and kept[-1] is not moments[-1]:
        kept.append(moments[-1])
    return tuple(kept)
