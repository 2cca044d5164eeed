"""What a host tells of its applications, from what it remembers and sees."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from skerry.reconcile.records import ApplicationRecord, InstanceFact, Memory, ReleaseFact, Seen, Target
from skerry.spec.report import ApplicationView, ComponentState, ComponentView, Phase


def view_applications(
    targets: Mapping[str, Target],
    records: Mapping[str, ApplicationRecord],
    seen: Seen,
    memory: Memory,
    why: Mapping[str, str],
) -> dict[str, ApplicationView]:
    """Return the view of every application that is wanted or remembered here."""
    return {
        name: _view(
            targets.get(name), records.get(name) or ApplicationRecord(name), seen, memory, why.get(name, "")
        )
        for name in sorted({*targets, *records})
    }


def _view(
    target: Target | None, record: ApplicationRecord, seen: Seen, memory: Memory, why: str
) -> ApplicationView:
    release = _shown_release(record, seen)
    components: dict[str, ComponentView] = {}
    for component in release.components if release else ():
        key = release.instance_id(record.application, component.name) if release else ""
        fact = seen.instances.get(key)
        restarts = memory.instances[key].restarts if key in memory.instances else 0
        view = _component(release.name if release else "", fact, restarts)
        image = release.images.get(component.name, "") if release else ""
        components[component.name] = msgspec.structs.replace(view, image=image)
    names = {digest: fact.name for digest, fact in seen.releases.items()}
    return ApplicationView(
        phase=_phase(target, record, components, settled=release is not None and _settled(release, seen)),
        release=names.get(record.good, record.good),
        candidate=names.get(record.candidate, record.candidate),
        why=why,
        refused={digest: refusal.reason for digest, refusal in record.refused.items()},
        components=components,
        choices=release.choices if release else (),
        failed_variants=dict(_tried(record, seen)),
        duty="" if target is None or not target.placed else "active" if target.active else "stand-by",
    )


def _tried(record: ApplicationRecord, seen: Seen) -> Mapping[str, str]:
    """The variants that failed their self-test: those of the candidate while there is one, else of the good release."""
    fact = seen.releases.get(record.candidate or record.good)
    return fact.failed if fact else {}


def _shown_release(record: ApplicationRecord, seen: Seen) -> ReleaseFact | None:
    """The release whose components are on the stage: the candidate once it took over from the good one."""
    good = seen.releases.get(record.good)
    if record.phase not in ("starting", "soaking") or (good is not None and _serves(good, record, seen)):
        return good
    return seen.releases.get(record.candidate)


def _serves(release: ReleaseFact, record: ApplicationRecord, seen: Seen) -> bool:
    """Tell whether a release goes on beside the one on trial."""
    candidate = seen.releases.get(record.candidate)
    if candidate is not None and candidate.kin == release.kin:
        return False
    keys = [release.instance_id(record.application, component.name) for component in release.components]
    return any(key in seen.instances and seen.instances[key].state == "running" for key in keys)


def _settled(release: ReleaseFact, seen: Seen) -> bool:
    """Tell whether what runs goes by this release's models and configuration, and not by a relative's."""
    return not release.hot or seen.taken.get(release.kin) == release.digest


def _phase(
    target: Target | None,
    record: ApplicationRecord,
    components: Mapping[str, ComponentView],
    *,
    settled: bool,
) -> Phase:
    if target is None:
        return "stopping"
    if record.candidate:
        return record.phase or "pending"
    if not target.active and (record.good or target.digest not in record.refused):
        return "standing-by"
    if not record.good:
        return "stopped" if target.digest in record.refused else "pending"
    ready = all(view.state == "ready" for view in components.values())
    return "running" if settled and ready and components else "returning"


def _component(release: str, fact: InstanceFact | None, restarts: int) -> ComponentView:
    if fact is None:
        return ComponentView(state="waiting", release=release, restarts=restarts)
    state: ComponentState
    if fact.state == "running":
        state = "ready" if fact.ready else "unready" if fact.started else "starting"
    elif fact.state == "stopping":
        state = "stopping"
    else:
        state = "backoff" if restarts else "exited"
    return ComponentView(
        state=state,
        release=release,
        restarts=restarts,
        exit_code=fact.exit_code,
        endpoints=dict(fact.endpoints) if fact.state == "running" else {},
        limits=dict(fact.limits),
        message=fact.fatal or fact.dead or fact.probe_why,
    )
