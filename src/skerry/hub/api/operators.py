"""Operators: login, API tokens, and what is audited of their requests."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

from litestar import Request, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from skerry.carrier.limits import TooMany, address_of
from skerry.hub.api.scope import Seen
from skerry.hub.api.served import served_by
from skerry.hub.services import Hub
from skerry.hub.views import view_token
from skerry.kit.errors import Denied, Rejected
from skerry.kit.ids import new_secret
from skerry.matching.selector import parse_selector
from skerry.ports.hub_store import Audit, TokenRecord
from skerry.spec.api import LoginRequest, NewToken, TokenRequest, TokenView, WhoAmI
from skerry.trust.tokens import hash_secret

ApiRequest = Request[TokenRecord, str, State]
OpenRequest = Request[object, object, State]
TheHub = NamedDependency[Hub]
TheSeen = NamedDependency[Seen]

MAX_LOGIN_BYTES = 4096


@post("/login", status_code=200, request_max_body_size=MAX_LOGIN_BYTES, security=[{}])
async def login(data: JSONBody[LoginRequest], hub: TheHub, request: OpenRequest) -> NewToken:
    """Exchange the one-time secret that the hub printed for an API token."""
    door = served_by(request).door
    address = address_of(request.client.host if request.client else None)
    try:
        door.try_login(address)
    except TooMany:
        await door.refusals.note("unknown", "login.rate", "one-time secret")
        raise
    now = hub.clock.now()
    record, secret = _new_token(TokenRequest(name=f"admin-{secrets.token_hex(3)}", role="admin"), hub)
    audit = Audit(at=now, who=record.name, action="login", subject=f"token:{record.id}")
    if not await asyncio.to_thread(hub.store.exchange_token, hash_secret(data.secret.strip()), record, audit):
        await door.refusals.note("unknown", "login", "one-time secret")
        hint = "make a new one on the hub's machine with skerry hub admin-secret"
        raise Denied("login.refused", "this one-time secret is wrong, used up or expired", hint=hint)
    door.logged_in(address)
    return NewToken(secret=secret, token=view_token(record))


@get("/whoami")
async def whoami(request: ApiRequest) -> WhoAmI:
    """Say who the hub takes the caller for."""
    return WhoAmI(name=request.user.name, role=request.user.role, sites=request.user.sites)


@get("/tokens")
async def list_tokens(hub: TheHub) -> list[TokenView]:
    """List API tokens."""
    return [view_token(token) for token in await asyncio.to_thread(hub.store.tokens) if not token.once]


@post("/tokens")
async def create_token(data: JSONBody[TokenRequest], hub: TheHub, request: ApiRequest) -> NewToken:
    """Make an API token; its secret is shown this once."""
    record, secret = _new_token(data, hub)
    await asyncio.to_thread(
        hub.store.add_token, record, audit_of(hub, request, "token.create", f"token:{data.name}")
    )
    return NewToken(secret=secret, token=view_token(record))


@delete("/tokens/{token_id:str}")
async def revoke_token(token_id: FromPath[str], hub: TheHub, request: ApiRequest) -> None:
    """Revoke an API token at once."""
    audit = audit_of(hub, request, "token.revoke", f"token:{token_id}")
    await asyncio.to_thread(hub.store.remove_token, token_id, audit)


def audit_of(hub: Hub, request: ApiRequest, action: str, subject: str) -> Audit:
    """Return the audit entry of what the caller is about to do."""
    return Audit(at=hub.clock.now(), who=request.user.name, action=action, subject=subject)


def _new_token(asked: TokenRequest, hub: Hub) -> tuple[TokenRecord, str]:
    secret = new_secret("skerry")
    now = hub.clock.now()
    record = TokenRecord(
        id=secrets.token_hex(6),
        name=asked.name,
        hash=hash_secret(secret),
        role=asked.role,
        sites=_scope(asked),
        created_at=now,
        expires_at=now + timedelta(seconds=asked.ttl_s) if asked.ttl_s else None,
    )
    return record, secret


def _scope(asked: TokenRequest) -> str:
    """Return the selector that a new token is limited to; empty when it is limited to nothing."""
    if not asked.sites or not parse_selector(asked.sites).terms:
        return ""
    if asked.role == "admin":
        hint = "give it a lower role, or leave out the sites"
        raise Rejected("token.scoped_admin", "an admin's token is for all sites", hint=hint)
    return asked.sites.strip()


HANDLERS = [login, whoami, list_tokens, create_token, revoke_token]
