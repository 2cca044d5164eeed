"""Where a site is in a rollout: the states, which may follow which, and what a site's hosts say of it.

Rules: what a host says counts from the moment that it acts on the desired state that offers the release; a site that
is not heard of is `unreachable` and neither failed nor succeeded; one that had succeeded before it fell silent has
succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from skerry.rollout.facts import SiteFact, Stage
from skerry.spec.api_rollout import SiteRolloutState

_at_work: set[SiteRolloutState] = {
    "offered",
    "downloading",
    "ready",
    "waiting_window",
    "held",
    "applying",
    "soaking",
}
AT_WORK = frozenset(_at_work)
"""The site has been offered the release and is not done with it; these count against what may be in flight."""

_open: set[SiteRolloutState] = {"pending", "unreachable"}
UNFINISHED = AT_WORK | _open

_done: set[SiteRolloutState] = {"succeeded", "failed", "unreachable", "pending", "rolled_back", "superseded"}
_steps: dict[SiteRolloutState, set[SiteRolloutState]] = {
    "pending": {"offered", "unreachable", "superseded"},
    "succeeded": {*AT_WORK, "failed", "unreachable", "rolled_back", "superseded"},
    "failed": {"pending", "rolled_back", "superseded"},
    "rolled_back": {"pending", "superseded"},
    "unreachable": {*AT_WORK, "pending", "succeeded", "failed", "rolled_back", "superseded"},
    "superseded": set(),
}
LEGAL_STEPS: Mapping[SiteRolloutState, frozenset[SiteRolloutState]] = {
    **{state: frozenset(following) for state, following in _steps.items()},
    **{state: (AT_WORK | _done) - {state} for state in _at_work},
}
"""Which state of a site may follow which. `failed` and `rolled_back` are left when a person retries."""

_ORDER: tuple[Stage, ...] = ("", "downloading", "ready", "waiting_window", "held", "applying", "soaking")
_STATE_OF: Mapping[Stage, SiteRolloutState] = {
    "": "offered",
    "downloading": "downloading",
    "ready": "ready",
    "waiting_window": "waiting_window",
    "held": "held",
    "applying": "applying",
    "soaking": "soaking",
}

SILENT = "not heard of for longer than its tolerance; it goes on by itself"
BY_HAND = (
    "reached by bundles: the next one brings it, and the reports that are carried back tell what became of it"
)

Seen = tuple[SiteRolloutState, str, datetime | None]


def observe_site(release: str, site: SiteFact) -> Seen:
    """Return the state of a site that was offered a release, why, and as of when.

    One refusal fails it; all hosts that it is for must have taken it for good. Of those at work the one that is least
    far says how far the site is.
    """
    as_of = max((host.as_of for host in site.hosts if host.as_of), default=None)
    if site.unfit:
        return "failed", site.unfit, as_of
    for host in site.hosts:
        if host.holds_offer and host.refused:
            return "failed", f"{host.name}: {host.refused}", host.as_of
    held = [host for host in site.hosts if host.holds_offer]
    proven = [
        host
        for host in held
        if host.running == release and not host.candidate and not (site.turns and host.standing_by)
    ]
    ready = [
        host
        for host in held
        if site.turns and host.standing_by and release == (host.candidate or host.running)
    ]
    wanted = min(site.turns, len(site.hosts)) if site.turns else len(site.hosts)
    if site.hosts and len(proven) >= wanted and len(proven) + len(ready) == len(site.hosts):
        return (
            "succeeded",
            _proven_why(site, [host.name for host in proven], [host.name for host in ready]),
            as_of,
        )
    if not site.reachable:
        return "unreachable", BY_HAND if site.by_hand else SILENT, as_of
    if not site.hosts:
        return "offered", "the site has no hosts for it yet", None
    if not held:
        return "offered", f"not taken yet by {', '.join(host.name for host in site.hosts)}", as_of
    busy = [host for host in held if host not in proven and host not in ready]
    stages: list[Stage] = [host.stage for host in busy]
    least = min(stages, key=_ORDER.index) if stages else _ORDER[0]
    parts = [f"{host.name}: {host.why or 'working on it'}" for host in busy]
    parts += [f"{host.name}: queued" for host in site.hosts if not host.holds_offer]
    state = "applying" if not least and (proven or ready) else _STATE_OF[least]
    return state, "; ".join(parts) or "waiting for a host whose turn it is", as_of


def is_back(site: SiteFact, previous: str) -> bool:
    """Tell whether all hosts of a site that is to go back run what they had before, and try nothing else."""
    return all(host.holds_offer and not host.candidate and host.running == previous for host in site.hosts)


def _proven_why(site: SiteFact, proven: list[str], ready: list[str]) -> str:
    if not site.turns:
        return "every host runs it"
    return f"{', '.join(proven)} runs it" + (f"; {', '.join(ready)} standing by" if ready else "")
