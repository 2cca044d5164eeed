"""One decision about one rollout.

States of a site: `pending` (not offered yet), `offered` (its desired state names the release, the site has not
said that it holds that desired state), `applying` (a host works on it), `succeeded` (every host that it is for runs
it for good or, where it is placed by turns, stands by with it), `failed` (a host refused it and went back, or it
fits none), `superseded` (a newer rollout has the site). States of the rollout: `running`, `succeeded`, `failed`,
`superseded`.

Rules (docs/rules): after a failure no further site gets the release; a silent site is neither failed nor
succeeded; the same facts give the same decision.

Waves and evidence gates take their place in `_offer`: it decides which pending sites may begin now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from skerry.spec.api import RolloutState, SiteProgress, SiteRolloutState

LEGAL_SITE_STEPS: Mapping[SiteRolloutState, frozenset[SiteRolloutState]] = {
    "pending": frozenset({"offered", "superseded"}),
    "offered": frozenset({"applying", "succeeded", "failed", "pending", "superseded"}),
    "applying": frozenset({"succeeded", "failed", "pending", "superseded"}),
    "succeeded": frozenset({"applying", "failed", "superseded"}),
    "failed": frozenset({"pending", "superseded"}),
    "superseded": frozenset(),
}
"""Which state of a site may follow which; `failed` is left only when a person retries."""

UNFINISHED: frozenset[SiteRolloutState] = frozenset({"pending", "offered", "applying"})


class HostFact(msgspec.Struct, frozen=True):
    """What a rollout needs to know of a host.

    `holds_offer`: it acts on the desired state that offers the release. `standing_by`: it has made `running` and
    `candidate` ready and runs nothing, because it is not its turn. `as_of`: when the hub learnt it.
    """

    name: str
    holds_offer: bool
    running: str = ""
    candidate: str = ""
    refused: str = ""
    why: str = ""
    as_of: datetime | None = None
    standing_by: bool = False


class SiteFact(msgspec.Struct, frozen=True):
    """What a rollout needs to know of a site.

    `hosts` are those that the release is for: the placed ones where it is placed. `turns` is how many of them shall
    run it while the others stand by; 0 means all. `unfit` says why it fits no host. `assigned` is the release of
    this application the site shall run, given by the rollout `assigned_by`; `taken_by` names a newer rollout of
    the same application that has the site, if there is one.
    """

    name: str
    hosts: tuple[HostFact, ...] = ()
    assigned: str = ""
    assigned_by: str = ""
    taken_by: str = ""
    turns: int = 0
    unfit: str = ""


class RolloutFact(msgspec.Struct, frozen=True):
    """The rollout as stored; before `begin_at` nothing is offered, nor while it is `blocked`: that says why.

    `revoked` says why the release is trusted no more: then the rollout is over.
    """

    name: str
    release: str
    state: RolloutState
    sites: Mapping[str, SiteProgress]
    begin_at: datetime | None = None
    blocked: str = ""
    revoked: str = ""


class Assign(msgspec.Struct, frozen=True, tag=True):
    """Give a site this release."""

    site: str
    release: str


class Unassign(msgspec.Struct, frozen=True, tag=True):
    """Take the application from a site that had none before this rollout."""

    site: str


Effect = Assign | Unassign


class Decision(msgspec.Struct, frozen=True):
    """What to do, where everything stands then, when to look again, and why."""

    state: RolloutState
    sites: Mapping[str, SiteProgress]
    effects: tuple[Effect, ...]
    why: str
    wake_at: datetime | None = None


def decide_rollout(rollout: RolloutFact, fleet: Sequence[SiteFact], *, now: datetime) -> Decision:
    """Return the decision for a rollout over the sites its selector names now."""
    if rollout.state != "running":
        return Decision(rollout.state, rollout.sites, (), "it has ended")
    ordered = sorted(fleet, key=lambda site: site.name)
    seen = {site.name: _observe(rollout, site, now) for site in ordered}
    # A site that left the selection keeps its last word.
    sites = {**{name: p for name, p in rollout.sites.items() if name not in seen}, **seen}
    failed = [name for name in sorted(sites) if sites[name].state == "failed"]
    if failed:
        effects = _halt(rollout, ordered, sites)
        why = f"halted: {len(failed)} of {len(sites)} sites failed ({failed[0]}: {sites[failed[0]].why})"
        return Decision("failed", sites, effects, why)
    if rollout.revoked and any(progress.state in UNFINISHED for progress in sites.values()):
        effects = _halt(rollout, ordered, sites)
        return Decision("failed", sites, effects, f"halted: {rollout.revoked}")
    if rollout.begin_at is not None and now < rollout.begin_at:
        decision = _conclude(sites, ())
        why = f"begins at {rollout.begin_at:%Y-%m-%d %H:%M:%S %Z}"
        # Every site may be a newer rollout's by now.
        waits = msgspec.structs.replace(decision, why=why, wake_at=rollout.begin_at)
        return waits if decision.state == "running" else decision
    if rollout.blocked and any(sites[site.name].state == "pending" for site in ordered):
        decision = _conclude(sites, ())
        why = f"{decision.why}; offered to no further site: {rollout.blocked}"
        return msgspec.structs.replace(decision, why=why)
    return _conclude(sites, _offer(rollout, ordered, sites, now))


def retry_rollout(rollout: RolloutFact) -> Mapping[str, SiteProgress]:
    """Return the sites of a failed rollout as they stand when a person asks to try again."""
    return {
        name: msgspec.structs.replace(progress, state="pending", why="to be tried again")
        if progress.state in ("failed", "pending")
        else progress
        for name, progress in rollout.sites.items()
    }


def _observe(rollout: RolloutFact, site: SiteFact, now: datetime) -> SiteProgress:
    before = rollout.sites.get(site.name) or SiteProgress(state="pending", why="not offered yet", as_of=now)
    if site.taken_by and before.state in UNFINISHED:
        return msgspec.structs.replace(before, state="superseded", why=f"by {site.taken_by}", as_of=now)
    if before.state in ("pending", "superseded"):
        return before
    state, why, as_of = _site_state(rollout.release, site)
    if state != before.state and state not in LEGAL_SITE_STEPS[before.state]:
        return before
    return msgspec.structs.replace(before, state=state, why=why, as_of=as_of or before.as_of)


def _site_state(release: str, site: SiteFact) -> tuple[SiteRolloutState, str, datetime | None]:
    """Return a site's state from its hosts: one refusal fails it, all must have it for it to succeed."""
    as_of = max((host.as_of for host in site.hosts if host.as_of), default=None)
    if site.unfit:
        return "failed", site.unfit, as_of
    if not site.hosts:
        return "offered", "the site has no hosts for it yet", None
    for host in site.hosts:
        if host.holds_offer and host.refused:
            return "failed", f"{host.name}: {host.refused}", host.as_of
    waiting = [host for host in site.hosts if not host.holds_offer]
    held = [host for host in site.hosts if host.holds_offer]
    proven = [
        h for h in held if h.running == release and not h.candidate and not (site.turns and h.standing_by)
    ]
    ready = [h for h in held if site.turns and h.standing_by and release == (h.candidate or h.running)]
    wanted = min(site.turns, len(site.hosts)) if site.turns else len(site.hosts)
    if len(proven) >= wanted and len(proven) + len(ready) == len(site.hosts):
        standing = f"; {', '.join(host.name for host in ready)} standing by" if ready else ""
        running = ", ".join(host.name for host in proven)
        return "succeeded", f"{running} runs it{standing}" if site.turns else "every host runs it", as_of
    if len(waiting) == len(site.hosts):
        names = ", ".join(host.name for host in waiting)
        return "offered", f"queued: not fetched yet by {names}", as_of
    busy = [host for host in held if host not in proven + ready]
    parts = [f"{host.name}: {host.why or 'working on it'}" for host in busy]
    parts += [f"{host.name}: queued" for host in waiting]
    return "applying", "; ".join(parts) or "waiting for a host whose turn it is", as_of


def _offer(
    rollout: RolloutFact, fleet: Sequence[SiteFact], sites: dict[str, SiteProgress], now: datetime
) -> tuple[Effect, ...]:
    """Offer the release to every pending site: one wave. Remembers where each site came from."""
    effects: list[Effect] = []
    for site in fleet:
        if sites[site.name].state != "pending":
            continue
        previous = site.assigned if site.assigned != rollout.release else sites[site.name].previous
        sites[site.name] = SiteProgress(state="offered", why="queued", as_of=now, previous=previous)
        effects.append(Assign(site.name, rollout.release))
    return tuple(effects)


def _halt(
    rollout: RolloutFact, fleet: Sequence[SiteFact], sites: dict[str, SiteProgress]
) -> tuple[Effect, ...]:
    """Take the release back from every site that has not proven it: also from those that are away now."""
    effects: list[Effect] = []
    for site in fleet:
        progress = sites[site.name]
        if progress.state not in ("failed", "offered", "applying"):
            continue
        if site.assigned == rollout.release and site.assigned_by == rollout.name:
            effects.append(Assign(site.name, progress.previous) if progress.previous else Unassign(site.name))
        if progress.state != "failed":
            why = "taken back: the rollout was halted"
            sites[site.name] = msgspec.structs.replace(progress, state="pending", why=why)
    return tuple(effects)


def _conclude(sites: dict[str, SiteProgress], effects: tuple[Effect, ...]) -> Decision:
    counts: dict[str, int] = {}
    for progress in sites.values():
        counts[progress.state] = counts.get(progress.state, 0) + 1
    why = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no site matches yet"
    state: RolloutState = "running"
    if sites and not any(progress.state in UNFINISHED for progress in sites.values()):
        state = "succeeded" if counts.get("succeeded") else "superseded"
    return Decision(state, sites, effects, why)
