"""Relays: what they are written to be, how they stand, tokens with which they join, and the ways by them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, JSONBody

from skerry.hub.api.operators import ApiRequest, TheHub, TheSeen, audit_of
from skerry.hub.relays_issuing import server_names
from skerry.hub.relays_path import trace_path
from skerry.hub.services import Hub
from skerry.hub.views import as_json
from skerry.kit.errors import Conflict, Missing, Rejected
from skerry.kit.ids import new_secret
from skerry.kit.quantities import parse_duration
from skerry.ports.relay_records import RelayRecord, RelayTokenRecord
from skerry.spec.api_relay import RelayPresence, RelayStanding, RelayTokenAnswer, RelayTokenRequest, SitePath
from skerry.spec.carrier import JoinToken
from skerry.spec.checks_relay import find_circle
from skerry.spec.documents import AnyDocument
from skerry.spec.problems import Problem
from skerry.spec.relay import Relay
from skerry.spec.site import Site
from skerry.trust.relay import relay_subject
from skerry.trust.tokens import encode_join_token, hash_secret


@get("/relays", sync_to_thread=True)
def list_relays(hub: TheHub) -> list[RelayStanding]:
    """List relays."""
    now = hub.clock.now()
    return [_standing(hub, record, now) for record in hub.store.relays()]


@get("/relays/{name:str}", sync_to_thread=True)
def show_relay(name: FromPath[str], hub: TheHub) -> RelayStanding:
    """Show one relay."""
    return _standing(hub, _relay(hub, name), hub.clock.now())


@delete("/relays/{name:str}")
async def remove_relay(name: FromPath[str], hub: TheHub, request: ApiRequest) -> None:
    """Forget a relay: it may carry no more. What is behind it goes another way, or waits."""
    document = msgspec.json.decode((await asyncio.to_thread(_relay, hub, name)).document, type=Relay)
    for other in await asyncio.to_thread(hub.store.relays):
        if document.metadata.name in msgspec.json.decode(other.document, type=Relay).spec.upstreams:
            hint = f"take it out of the upstreams of {other.name} first"
            raise Conflict("relay.is_upstream", f"relay {other.name} names {name} as its upstream", hint=hint)
    audit = audit_of(hub, request, "relay.remove", relay_subject(name))
    await asyncio.to_thread(hub.store.remove_relay, name, audit)
    hub.backend.relays.forget(name)


@post("/relays/{name:str}/tokens", sync_to_thread=True)
def create_relay_token(
    name: FromPath[str], data: JSONBody[RelayTokenRequest], hub: TheHub, request: ApiRequest
) -> RelayTokenAnswer:
    """Make a token with which this relay joins; it is shown this once."""
    record = _relay(hub, name)
    if record.sign_key and not data.replace:
        hint = f"if another machine takes its place: skerry relay token {name} --replace"
        raise Conflict("relay.enrolled", f"relay {name} has joined already", hint=hint)
    now, secret = hub.clock.now(), new_secret("join")
    expires_at = now + timedelta(seconds=data.ttl_s)
    upstreams = msgspec.json.decode(record.document, type=Relay).spec.upstreams
    address = entry_address(hub, data.via or (upstreams[0] if upstreams else ""))
    token = RelayTokenRecord(
        hash=hash_secret(secret),
        relay=name,
        created_at=now,
        expires_at=expires_at,
        replaces=data.replace,
    )
    hub.store.add_relay_token(token, audit_of(hub, request, "relay.token", relay_subject(name)))
    text = JoinToken(
        hub=address,
        site="",
        root=hub.repository.root_digest,
        secret=secret,
        expires_at=expires_at,
        relay=name,
    )
    return RelayTokenAnswer(token=encode_join_token(text), relay=name, hub=address, expires_at=expires_at)


@get("/sites/{name:str}/path", sync_to_thread=True)
def explain_path(name: FromPath[str], hub: TheHub, seen: TheSeen) -> SitePath:
    """Say which way blobs and reports of a site's hosts take, hop by hop."""
    site = msgspec.json.decode(seen.site(name).document, type=Site)
    relays, now = hub.store.relays(), hub.clock.now()
    hosts = hub.store.hosts(name)
    sightings = hub.backend.relays.sightings([host.name for host in hosts])
    tolerance = timedelta(seconds=parse_duration(site.spec.offline_tolerance))
    behind = hub.backend.relays.sites_behind
    return SitePath(
        site=name,
        relays=tuple(relay.name for relay in relays if name in behind(relay.name)),
        hosts=tuple(trace_path(host, relays, sightings, now=now, tolerance=tolerance) for host in hosts),
    )


def entry_address(hub: Hub, via: str) -> str:
    """Return where one who joins shall ask: the hub, a relay by its name, or an address as it is.

    Raises:
        Missing: there is no relay of that name. Rejected: it is no https address.
    """
    if not via:
        return hub.url
    if "/" not in via:
        return f"https://{msgspec.json.decode(_relay(hub, via).document, type=Relay).spec.addresses[0]}"
    parts = urlsplit(via)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        hint = "write the name of a relay, or https://HOST:PORT"
        raise Rejected("join.bad_via", f"not a way to join by: {via[:200]!r}", hint=hint)
    return via.rstrip("/")


def check_relays(hub: Hub, documents: Sequence[AnyDocument]) -> list[Problem]:
    """Return what is wrong with new relays beside those that are there: upstreams, circles, the hub's own name."""
    new = {document.metadata.name: document for document in documents if isinstance(document, Relay)}
    if not new:
        return []
    stored = [msgspec.json.decode(record.document, type=Relay) for record in hub.store.relays()]
    all_of_them = {**{relay.metadata.name: relay for relay in stored}, **new}
    upstreams = {name: relay.spec.upstreams for name, relay in all_of_them.items()}
    problems: list[Problem] = []
    for name, relay in new.items():
        where = f"Relay {name}: spec"
        for index, upper in enumerate(relay.spec.upstreams):
            if upper not in all_of_them:
                hint = f"relays here: {', '.join(sorted(all_of_them))}"
                problems.append(Problem(f"{where}.upstreams[{index}]", f"there is no relay {upper}", hint))
        if circle := find_circle(upstreams, name):
            what = f"it dials itself: {' > '.join(circle)}"
            problems.append(Problem(f"{where}.upstreams", what, "one of them has to dial the hub"))
        if taken := set(server_names(relay.spec.addresses)) & _hub_names(hub):
            what = f"{', '.join(sorted(taken))} is the hub's own name: the relay could pass for the hub"
            problems.append(Problem(f"{where}.addresses", what, "give the relay a name of its own"))
    return problems


def _hub_names(hub: Hub) -> frozenset[str]:
    """Return the names that no relay may have a certificate for; on one machine, both are at its own address."""
    name = urlsplit(hub.url).hostname or ""
    if name == "localhost" or (name[:1].isdigit() and ip_address(name).is_loopback) or name == "::1":
        return frozenset()
    return frozenset({name})


def _relay(hub: Hub, name: str) -> RelayRecord:
    record = hub.store.relay(name)
    if record is None:
        raise Missing("relay.missing", f"there is no relay {name}", hint="skerry get relays lists them")
    return record


def _standing(hub: Hub, record: RelayRecord, now: datetime) -> RelayStanding:
    relays = hub.backend.relays
    presence: RelayPresence = "never"
    if record.last_seen_at is not None:
        presence = "online" if relays.is_online(record, now) else "silent"
    return RelayStanding(
        name=record.name,
        labels=dict(msgspec.json.decode(record.document, type=Relay).metadata.labels),
        document=as_json(record.document),
        presence=presence,
        enrolled_at=record.enrolled_at,
        last_seen_at=record.last_seen_at,
        generation_held=record.generation_held,
        generation_wanted=record.generation,
        clock_offset_s=record.clock_offset_s,
        came_by=relays.came_by(record.name),
        below=tuple(sorted(relays.below(record.name))),
        sites=tuple(sorted(relays.sites_behind(record.name))),
        view=record.view,
        view_at=record.view_at,
    )


HANDLERS = [list_relays, show_relay, remove_relay, create_relay_token, explain_path]
