"""The audit: who did what, as a chain that whoever reads it checks for himself."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from litestar import get
from litestar.params import FromQuery, QueryParameter

from skerry.hub.api.operators import TheHub
from skerry.spec.api import AuditView
from skerry.spec.audit import AuditEntry, AuditHead

MAX_ENTRIES = 1000


@get("/audit")
async def list_audit(hub: TheHub, limit: FromQuery[int] = 100) -> list[AuditView]:
    """List who did what, the newest first."""
    records = await asyncio.to_thread(hub.store.audits, max(1, min(limit, MAX_ENTRIES)))
    return [
        AuditView(
            id=r.id,
            at=r.at,
            who=r.who,
            action=r.action,
            subject=r.subject,
            outcome=r.outcome,
            why=r.why,
            decision=r.decision,
        )
        for r in records
    ]


@get("/audit/entries", sync_to_thread=True)
def list_audit_entries(
    hub: TheHub,
    after: FromQuery[Annotated[int, QueryParameter(ge=0)]] = 0,
    limit: FromQuery[Annotated[int, QueryParameter(ge=1, le=MAX_ENTRIES)]] = MAX_ENTRIES,
) -> list[AuditEntry]:
    """List the oldest entries above a number, as they are chained."""
    return list(hub.store.audit_entries(after, limit))


@get("/audit/head", sync_to_thread=True)
def show_audit_head(hub: TheHub) -> AuditHead:
    """Say which entry is the newest, to be kept elsewhere."""
    head = hub.store.audit_head()
    return AuditHead(hub=hub.url, at=hub.clock.now(), number=head.number, digest=head.digest)


HANDLERS: list[Any] = [list_audit, list_audit_entries, show_audit_head]
