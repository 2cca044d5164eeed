"""What is desired and seen, in the words of the planner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

import msgspec

from skerry.agent.live_models import LiveModels, run_of
from skerry.agent.loops.neighbours import AppStatus
from skerry.agent.loops.probe import ProbeLoop, Watched
from skerry.agent.releases import Releases
from skerry.kit.editions import edition_of, release_in
from skerry.ports.runtime import InstanceView
from skerry.reconcile.duty import Duty
from skerry.reconcile.records import ApplicationRecord, InstanceFact, ReleaseFact, Target
from skerry.spec.application import Component
from skerry.spec.desired import DesiredState
from skerry.spec.report import ApplicationView, FetchProgress

T = TypeVar("T")


def targets_of(
    desired: DesiredState, host: str, duties: Mapping[str, Duty], alive: AbstractSet[str]
) -> dict[str, Target]:
    """Return what a desired state wants of a host, by application.

    `duties` say whose turn it is; without one, a placed application stays as it is: `alive` or not.
    """
    targets: dict[str, Target] = {}
    for assignment in desired.hosts.get(host, ()):
        ref = desired.releases.get(assignment.release)
        if ref is None:
            continue
        name = assignment.application
        placed, duty = name in desired.placements, duties.get(name)
        targets[name] = Target(
            name,
            assignment.release,
            edition_of(ref.digest, assignment.configuration or ""),
            assignment.attempt,
            assignment.health.deadline_s,
            assignment.health.soak_s,
            placed=placed,
            active=not placed or (duty.active if duty else name in alive),
            duty=duty.why if duty else "",
            wipe=assignment.wipe,
            urgent=assignment.urgent,
        )
    return targets


def by_edition(editions: AbstractSet[str], found: Mapping[str, T]) -> dict[str, T]:
    """Return for editions what was found by the digests of their releases."""
    return {edition: found[release_in(edition)] for edition in editions if release_in(edition) in found}


def fact_here(releases: Releases, edition: str) -> ReleaseFact | None:
    """Return the fact of an edition; a release that is to be configured, and came without, cannot run here."""
    fact = releases.fact(edition)
    lacks = fact is not None and fact.configured is None and any(one.config for one in fact.components)
    if fact is None or fact.problem or not lacks:
        return fact
    return msgspec.structs.replace(fact, problem="it came without a configuration")


def with_unstartable(
    facts: Mapping[str, InstanceFact], unstartable: Mapping[str, InstanceFact]
) -> dict[str, InstanceFact]:
    """Return what is seen of instances: what could not be started again is seen as that, not as the run before."""
    alive = {key for key, fact in facts.items() if fact.state in ("running", "stopping")}
    return {**facts, **{key: fact for key, fact in unstartable.items() if key not in alive}}


def urgent_releases(desired: DesiredState, host: str) -> frozenset[str]:
    """Return the digests of the releases that a host shall fetch before others."""
    named = (a.release for a in desired.hosts.get(host, ()) if a.urgent)
    return frozenset(desired.releases[name].digest for name in named if name in desired.releases)


def statuses_of(
    desired: DesiredState,
    records: Mapping[str, ApplicationRecord],
    fact_of: Callable[[str], ReleaseFact | None],
    alive: AbstractSet[str],
    *,
    held: Callable[[str], str] = lambda _: "",
) -> dict[str, AppStatus]:
    """Return how the placed applications stand here, for the neighbours.

    A host that has only a release that is `held` here could not run it if its turn came.
    """
    statuses: dict[str, AppStatus] = {}
    for name in desired.placements:
        record = records.get(name) or ApplicationRecord(name)
        may_try = not held(name) or record.phase in ("starting", "soaking")
        mine = (record.good, record.candidate if may_try else "")
        ready = [fact for digest in mine if digest and (fact := fact_of(digest))]
        able = any(fact.prepared and (fact.tested or fact.digest == record.good) for fact in ready)
        statuses[name] = AppStatus(able=able, alive=name in alive)
    return statuses


def with_progress(
    views: Mapping[str, ApplicationView],
    records: Mapping[str, ApplicationRecord],
    progress: Mapping[str, FetchProgress],
) -> dict[str, ApplicationView]:
    """Return the views, with how far the download is of those that fetch: the candidate, or the good release again."""
    found = dict(views)
    for name, record in records.items():
        fetch = progress.get(record.candidate or record.good)
        if fetch is not None and name in found:
            found[name] = msgspec.structs.replace(found[name], fetch=fetch)
    return found


def adopted_records(instances: Mapping[str, InstanceView]) -> dict[str, ApplicationRecord]:
    """Return what is on a host as records of good releases; of several releases of one application, one that lives."""
    alive_first = sorted(instances.values(), key=lambda view: view.state not in ("running", "stopping"))
    adopted: dict[str, ApplicationRecord] = {}
    for view in alive_first:
        name, release = view.labels.get("application", ""), view.labels.get("release", "")
        if name and release and name not in adopted:
            adopted[name] = ApplicationRecord(name, good=release)
    return adopted


def alive_applications(instances: Mapping[str, InstanceView]) -> frozenset[str]:
    """Return the applications of which anything runs."""
    return frozenset(
        view.labels.get("application", "")
        for view in instances.values()
        if view.state in ("running", "stopping")
    )


def instance_facts(
    instances: Mapping[str, InstanceView], probes: ProbeLoop, live: LiveModels
) -> dict[str, InstanceFact]:
    """Return the instances as the planner sees them."""
    return {key: _fact(key, view, probes, live) for key, view in instances.items()}


def watched(
    instances: Mapping[str, InstanceView],
    component_of: Callable[[str, str], Component | None],
    live: LiveModels,
) -> dict[str, Watched]:
    """Return what is to be probed. With new models an instance is asked as if it had just begun."""
    found: dict[str, Watched] = {}
    for key, view in instances.items():
        component = component_of(view.labels.get("release", ""), view.labels.get("component", ""))
        if view.state == "running" and component is not None:
            models = live.taken.get(view.labels.get("family", ""), "")
            found[key] = Watched(f"{run_of(view)}+{models}", component.probes, _ports(view))
    return found


def _fact(key: str, view: InstanceView, probes: ProbeLoop, live: LiveModels) -> InstanceFact:
    probe = probes.states.get(key)
    labels = view.labels
    return InstanceFact(
        state=view.state,
        application=labels.get("application", key.split(".", maxsplit=1)[0]),
        component=labels.get("component", ""),
        release=labels.get("release", ""),
        family=labels.get("family", ""),
        run=run_of(view),
        exit_code=view.exit_code,
        started=probe is not None and probe.started,
        ready=probe is not None and probe.ready,
        dead=probe.dead if probe else "",
        stale=live.stale.get((key, run_of(view)), ""),
        probe_why=probe.why if probe else "",
        limits=view.limits,
        endpoints={name: f"127.0.0.1:{port}" for name, port in _ports(view).items()},
    )


def _ports(view: InstanceView) -> dict[str, int]:
    return {
        name.removeprefix("port."): int(text)
        for name, text in view.labels.items()
        if name.startswith("port.")
    }
