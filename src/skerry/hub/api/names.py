"""Names: where they lead at sites, and why."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.params import FromPath, FromQuery

from skerry.hub.api.operators import TheHub, TheSeen
from skerry.hub.naming import explain, name_standings
from skerry.kit.errors import Rejected
from skerry.spec.api_names import NameExplanation, NameStanding

MAX_NAME = 253


@get("/names", sync_to_thread=True)
def list_names(hub: TheHub, seen: TheSeen, site: FromQuery[str] = "") -> list[NameStanding]:
    """List the names of a site's routes, or of all sites', with the hosts that each leads to."""
    return name_standings(hub, seen.hosts(site or None))


@get("/sites/{name:str}/name", sync_to_thread=True)
def explain_name(name: FromPath[str], asked: FromQuery[str], hub: TheHub, seen: TheSeen) -> NameExplanation:
    """Say where a name leads at a site, and why."""
    seen.site(name)
    if not asked or len(asked) > MAX_NAME:
        raise Rejected("name.malformed", f"a name has 1 to {MAX_NAME} characters")
    return explain(hub, asked, name, seen.hosts(name))


HANDLERS: list[Any] = [list_names, explain_name]
