"""Who asks, and what they may: bearer tokens by their hash, one role each.

A refusal is audited. The secret itself is never stored, logged or repeated.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import Receive, Scope, Send

from skerry.carrier.limits import TooMany, address_of
from skerry.hub.api.access import ACCESS, Needed, Scoping, may
from skerry.hub.api.served import served_by
from skerry.hub.services import Hub
from skerry.kit.errors import Denied, Unauthenticated
from skerry.ports.hub_store import TokenRecord
from skerry.trust.tokens import hash_secret

TOUCH_EVERY = timedelta(minutes=1)
UNKNOWN = "unknown"

Connection = ASGIConnection[BaseRouteHandler, TokenRecord, str, State]


class TokenAuth(AbstractAuthenticationMiddleware):
    """Finds the token behind a request, or refuses it, and counts what the token asks at a time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass whose token is good."""
        connection: Connection = ASGIConnection(scope)
        if needed_of(connection.route_handler) == "open":
            await self.app(scope, receive, send)
            return
        result = await self.authenticate_request(connection)
        scope["user"], scope["auth"] = result.user, result.auth
        door = served_by(connection).door
        try:
            with door.turns.turn(result.user.id):
                await self.app(scope, receive, send)
        except TooMany:
            await door.refusals.note(result.user.name, "refused.rate", subject_of(connection))
            raise

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """Return who asks.

        Raises:
            Unauthenticated: no token, an unknown one, or one that has expired.
            TooMany: the token, or an address without a good one, asks too often.
        """
        served = served_by(connection)
        hub, door = served.hub, served.door
        address = peer_of(connection)
        secret = _secret_of(connection)
        hashed = hash_secret(secret) if secret else ""
        try:
            door.gate.enter(address, hashed, hub.clock.monotonic())
        except TooMany:
            record = (
                await asyncio.to_thread(hub.store.token_by_hash, hashed) if door.gate.knows(hashed) else None
            )
            who = record.name if record is not None else UNKNOWN
            await door.refusals.note(who, "refused.rate", subject_of(connection))
            raise
        try:
            record = await self._find(hub, hashed)
        except Unauthenticated as error:
            door.gate.fail(address, hashed, hub.clock.monotonic())
            who, action = str(error.facts.get("token") or UNKNOWN), f"refused.{error.code.partition('.')[2]}"
            await door.refusals.note(who, action, subject_of(connection))
            raise
        door.gate.prove(hashed)
        now = hub.clock.now()
        if record.last_used_at is None or now - record.last_used_at > TOUCH_EVERY:
            await asyncio.to_thread(hub.store.touch_token, record.id, now)
        return AuthenticationResult(user=record, auth=record.role)

    async def _find(self, hub: Hub, hashed: str) -> TokenRecord:
        if not hashed:
            raise Unauthenticated("token.absent", "an API token is needed", hint="run skerry login")
        record = await asyncio.to_thread(hub.store.token_by_hash, hashed)
        if record is None or record.once:
            raise Unauthenticated(
                "token.unknown", "this API token is not known here", hint="run skerry login"
            )
        if record.expires_at is not None and hub.clock.now() > record.expires_at:
            message = f"API token {record.name} expired at {record.expires_at}"
            raise Unauthenticated("token.expired", message, token=record.name)
        return record


async def require_role(connection: Connection, handler: BaseRouteHandler) -> None:
    """Let a request pass whose token has at least the operation's role, and is not limited where that cannot be.

    Raises:
        Denied: it has not (`role.too_low`), or is (`scope.whole`).
    """
    needed, scoping = access_of(handler)
    if needed == "open":
        return
    token = connection.user
    enough = may(token.role, needed)
    if enough and not (token.sites and scoping == "whole"):
        return
    door = served_by(connection).door
    if enough:
        await door.refusals.note(token.name, "refused.scope", subject_of(connection))
        raise Denied("scope.whole", f"this is about the whole fleet; {token.name} is for {token.sites}")
    await door.refusals.note(token.name, "refused", subject_of(connection))
    raise Denied("role.too_low", f"this needs the role {needed}; {token.name} is {token.role}")


def needed_of(handler: BaseRouteHandler) -> Needed:
    """Return the lowest role that an operation takes."""
    return access_of(handler)[0]


def access_of(handler: BaseRouteHandler) -> tuple[Needed, Scoping]:
    """Return an operation's line of the table; one that nobody has thought about is for unlimited admins."""
    return ACCESS.get(handler.handler_name.rpartition(".")[2], ("admin", "whole"))


def peer_of(connection: ASGIConnection[BaseRouteHandler, TokenRecord, str, State]) -> str:
    """Return the address that a request comes from, as it counts for limits."""
    return address_of(connection.client.host if connection.client else None)


def subject_of(connection: Connection) -> str:
    """Return what a request is for, for the audit."""
    return f"{connection.scope.get('method', '')} {connection.scope['path']}"


def _secret_of(connection: Connection) -> str:
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
