"""Sending messages to applications at sites."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from datetime import timedelta
from typing import Any

import msgspec
from litestar import get, post
from litestar.params import FromQuery, JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.api.scope import Seen
from skerry.hub.downlinking import view_sent, why_refused
from skerry.hub.services import Hub
from skerry.hub.telemetry_query import labels_of
from skerry.kit.errors import Rejected
from skerry.matching.selector import parse_selector
from skerry.ports.downlink_store import DownlinkRecord
from skerry.spec.api_topics import SendAnswer, SendRequest, SentView
from skerry.spec.downlink import MAX_DOWNLINK_BYTES, MAX_DOWNLINKS


@post("/topics/sent", status_code=200)
async def send_topic_message(
    data: JSONBody[SendRequest], hub: TheHub, seen: TheSeen, request: ApiRequest
) -> SendAnswer:
    """Send a message to an application at sites; each host that runs it publishes it once, unless it expires before.

    All sites that are selected must take it, or none gets it.
    """
    payload = _payload(data)
    now, drawn = hub.clock.now(), secrets.token_hex(16)
    sites, refused = await asyncio.to_thread(_chosen, hub, seen, data)
    expires_at = now + timedelta(seconds=data.expires_s)
    answer = SendAnswer(id=drawn, sites=tuple(sites), refused=refused, expires_at=expires_at)
    if data.dry_run:
        return msgspec.structs.replace(answer, id="")
    if refused:
        site, why = next(iter(refused.items()))
        hint = "choose other sites, or roll out a release that takes it; --dry-run lists them"
        raise Rejected("downlink.refused", f"site {site}: {why}", hint=hint)
    if not sites:
        raise Rejected("downlink.nobody", "no site is selected", hint="skerry get sites lists them")
    records = [
        DownlinkRecord(
            id=drawn,
            site=site,
            application=data.application,
            topic=data.topic,
            payload=payload,
            created_at=now,
            created_by=request.user.name,
            expires_at=expires_at,
        )
        for site in sites
    ]
    audit = audit_of(hub, request, "topics.send", f"application:{data.application} topic:{data.topic}")
    await asyncio.to_thread(hub.store.add_downlinks, records, audit, most=MAX_DOWNLINKS)
    for site in sites:
        await hub.issuer.issue(site)
    return answer


@get("/topics/sent", sync_to_thread=True)
def list_sent(hub: TheHub, seen: TheSeen, selector: FromQuery[str] = "*") -> list[SentView]:
    """List messages that were sent to sites, the oldest first, and what became of each at each host."""
    chosen = parse_selector(selector)
    sites = {site.name for site in seen.sites() if chosen.matches(site.name, labels_of(site))}
    records = [one for one in hub.store.downlinks() if one.site in sites]
    return view_sent(hub.store, records, hub.clock.now())


def _chosen(hub: Hub, seen: Seen, data: SendRequest) -> tuple[list[str], dict[str, str]]:
    chosen = parse_selector(data.selector)
    sites = [site.name for site in seen.sites() if chosen.matches(site.name, labels_of(site))]
    found = {site: why_refused(hub.store, site, data.application, data.topic) for site in sites}
    return [site for site in sites if not found[site]], {site: why for site, why in found.items() if why}


def _payload(data: SendRequest) -> bytes:
    try:
        payload = base64.b64decode(data.payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected("downlink.payload", "the payload is not base64") from error
    if len(payload) > MAX_DOWNLINK_BYTES:
        hint = "files travel with releases"
        raise Rejected("downlink.payload", f"more than {MAX_DOWNLINK_BYTES} bytes", hint=hint)
    return payload


HANDLERS: list[Any] = [send_topic_message, list_sent]
