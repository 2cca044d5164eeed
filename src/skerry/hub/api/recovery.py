"""Sites that are held because they are ahead of the hub: take over what runs there, or issue what the hub says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from litestar import post
from litestar.params import FromPath

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.recovering import adopted, find_running, left_by, not_held, refuse_unready
from skerry.hub.services import Hub
from skerry.hub.views import view_held
from skerry.kit.errors import Conflict
from skerry.ports.hub_store import Audit, HostRecord
from skerry.spec.api_recovery import HeldView, ReleasedView

_ATTEMPTS = 5


@post("/sites/{name:str}/adopt", status_code=200)
async def adopt_site(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> ReleasedView:
    """Assign to a held site what its hosts run, and issue that above every generation they have reported.

    Running rollouts that were not done there leave the site alone.
    """
    await asyncio.to_thread(seen.site, name)
    stored = (await hub.issuer.issued(name)).generation
    hosts, releases, before = await asyncio.to_thread(
        lambda: (hub.store.hosts(name), hub.store.releases(), hub.store.assignments(name))
    )
    record = hub.issuer.recovering.held(name)
    if record is None:
        raise not_held(name)
    running = find_running(record, stored, hosts, releases)
    refuse_unready(name, running)
    audit = audit_of(hub, request, "site.adopt", f"site:{name}")
    left = await _leave_rollouts(hub, name, audit)
    wanted = adopted(name, running, before, hosts)
    await hub.issuer.recovering.settle(name, audit, stored=stored, assign=wanted)
    return await _go_on(hub, name, left)


@post("/sites/{name:str}/reissue", status_code=200)
async def reissue_site(name: FromPath[str], hub: TheHub, seen: TheSeen, request: ApiRequest) -> ReleasedView:
    """Issue to a held site what the hub says, above every generation that its hosts have reported."""
    await asyncio.to_thread(seen.site, name)
    stored = (await hub.issuer.issued(name)).generation
    audit = audit_of(hub, request, "site.reissue", f"site:{name}")
    await hub.issuer.recovering.settle(name, audit, stored=stored)
    return await _go_on(hub, name, ())


def held_view(hub: Hub, site: str, stored: int, hosts: Sequence[HostRecord]) -> HeldView | None:
    """Return why a site is held, None when it is not."""
    record = hub.issuer.recovering.held(site)
    if record is None:
        return None
    return view_held(record, find_running(record, stored, hosts, hub.store.releases()))


async def _go_on(hub: Hub, site: str, left: tuple[str, ...]) -> ReleasedView:
    await hub.issuer.issue(site)
    hub.rollouts.wake()
    assignments = await asyncio.to_thread(hub.store.assignments, site)
    return ReleasedView(
        site=site,
        generation=(await hub.issuer.issued(site)).generation,
        assignments={record.application: record.release for record in assignments},
        left_rollouts=left,
    )


async def _leave_rollouts(hub: Hub, site: str, audit: Audit) -> tuple[str, ...]:
    """Take the site out of all rollouts that would change what is adopted."""
    why = "the site was adopted with what it runs"
    for _ in range(_ATTEMPTS):
        left: list[str] = []
        try:
            for rollout in await asyncio.to_thread(hub.store.rollouts, running_only=True):
                without = left_by(rollout, site, why, audit.at)
                if without is not None:
                    await asyncio.to_thread(hub.store.advance_rollout, without, audit=audit)
                    left.append(rollout.name)
        except Conflict:
            continue  # the rollout loop was faster; look again
        return tuple(left)
    raise Conflict("rollout.moved", "rollouts of this site keep changing", hint="try again")


HANDLERS: list[Any] = [adopt_site, reissue_site]
