"""What was decided about a rollout, and why."""

from __future__ import annotations

from litestar import get
from litestar.params import FromPath, FromQuery

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.views import view_decision
from skerry.kit.errors import Missing
from skerry.spec.api_rollout import DecisionView

MOST = 1000


@get("/rollouts/{name:str}/decisions", sync_to_thread=True)
def list_decisions(
    name: FromPath[str], hub: TheHub, seen: TheSeen, limit: FromQuery[int] = 100
) -> list[DecisionView]:
    """List the decisions about a rollout that changed something, the newest first. The first and the newest are kept.

    They tell of all of its sites: a token that is limited to sites sees those of rollouts that are of no others.
    """
    record = hub.store.rollout(name)
    if record is None:
        raise Missing("rollout.missing", f"there is no rollout {name}", hint="skerry get rollouts lists them")
    seen.require_whole(record)
    return [view_decision(one) for one in hub.store.decisions(name, limit=max(1, min(limit, MOST)))]


HANDLERS = [list_decisions]
