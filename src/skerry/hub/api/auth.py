"""Who asks, and what they may: bearer tokens by their hash, and one role per route.

A refusal is audited. The secret itself is never stored, logged or repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from skerry.hub.services import Hub
from skerry.kit.errors import Denied, Unauthenticated
from skerry.ports.hub_store import Audit, TokenRecord
from skerry.spec.api import Role
from skerry.trust.tokens import hash_secret

RANK: Mapping[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}
TOUCH_EVERY = timedelta(minutes=1)

Connection = ASGIConnection[BaseRouteHandler, TokenRecord, str, State]


class TokenAuth(AbstractAuthenticationMiddleware):
    """Finds the token behind a request, or refuses it."""

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """Return who asks.

        Raises:
            Unauthenticated: no token, an unknown one, or one that has expired.
        """
        hub: Hub = connection.app.state["hub"]
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated("token.absent", "an API token is needed", hint="run skerry login")
        record = await asyncio.to_thread(hub.store.token_by_hash, hash_secret(secret.strip()))
        now = hub.clock.now()
        if record is None or record.once:
            raise Unauthenticated(
                "token.unknown", "this API token is not known here", hint="run skerry login"
            )
        if record.expires_at is not None and now > record.expires_at:
            raise Unauthenticated("token.expired", f"API token {record.name} expired at {record.expires_at}")
        if record.last_used_at is None or now - record.last_used_at > TOUCH_EVERY:
            await asyncio.to_thread(hub.store.touch_token, record.id, now)
        return AuthenticationResult(user=record, auth=record.role)


async def require_role(connection: Connection, handler: BaseRouteHandler) -> None:
    """Let a request pass whose token has at least the route's role.

    Raises:
        Denied: it has not (`role.too_low`).
    """
    needed: Role = handler.opt.get("role", "admin")
    if handler.opt.get("open"):
        return
    token = connection.user
    if RANK[token.role] >= RANK[needed]:
        return
    hub: Hub = connection.app.state["hub"]
    what = f"{connection.scope['type']} {connection.url.path}"
    audit = Audit(at=hub.clock.now(), who=token.name, action="refused", subject=what, outcome="denied")
    await asyncio.to_thread(hub.store.add_audit, audit)
    raise Denied("role.too_low", f"this needs the role {needed}; {token.name} is {token.role}")
