"""Which other applications an application meets at sites: bindings, routes and topics are shared with them."""

from __future__ import annotations

from skerry.hub.services import Hub


def releases_of_others(hub: Hub, application: str) -> dict[str, dict[str, str]]:
    """Return the releases of all other applications by site: those assigned, and those of rollouts under way."""
    found: dict[str, dict[str, str]] = {}
    for one in hub.store.assignments():
        found.setdefault(one.site, {})[one.application] = one.release
    for rollout in hub.store.rollouts():
        for site in rollout.sites if rollout.ended_at is None else ():
            found.setdefault(site, {})[rollout.application] = rollout.release
    for releases in found.values():
        releases.pop(application, None)
    return found
