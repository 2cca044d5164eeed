"""What happened at hosts and at the hub, page by page, and as it happens."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from litestar import post
from litestar.params import JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen
from skerry.hub.api.scope import Seen
from skerry.hub.event_log import LogFilter, cursor_at, newest_page, next_page, parse_cursor
from skerry.spec.api import Role
from skerry.spec.api_events import LogPage, LogRequest

LOOK_EVERY_S = 1.0


@post("/log", status_code=200)
async def read_log(data: JSONBody[LogRequest], hub: TheHub, seen: TheSeen, request: ApiRequest) -> LogPage:
    """List what happened: the newest, what arrived lately, or what follows on a cursor, waiting for it.

    What operators did is there for admins whose token is for all sites.
    """
    wanted = await asyncio.to_thread(_filter, seen, data, request.user.role)
    if not data.after and not data.since_s:
        return await asyncio.to_thread(newest_page, hub.store, wanted, data.limit)
    if data.after:
        cursor = parse_cursor(data.after)
    else:
        since = hub.clock.now() - timedelta(seconds=data.since_s)
        cursor = await asyncio.to_thread(cursor_at, hub.store, since)
    until = hub.clock.monotonic() + data.wait_s
    while True:
        page = await asyncio.to_thread(next_page, hub.store, wanted, cursor, data.limit)
        if page.entries or page.more or hub.clock.monotonic() >= until:
            return page
        cursor = parse_cursor(page.cursor)
        await hub.clock.sleep(LOOK_EVERY_S)


def _filter(seen: Seen, asked: LogRequest, role: Role) -> LogFilter:
    limited = seen.scope.limited
    return LogFilter(
        site=asked.site,
        host=asked.host,
        application=asked.application,
        kind=asked.kind,
        sites=seen.names() if limited else None,
        hub=role == "admin" and not limited,
    )


HANDLERS: list[Any] = [read_log]
