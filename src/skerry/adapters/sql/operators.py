"""API tokens and the hub's settings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.schema import settings, token_scopes, tokens
from skerry.kit.errors import Conflict, Missing
from skerry.ports.hub_store import Audit, TokenRecord


def load_setting(connection: sa.Connection, key: str) -> bytes | None:
    """Return a setting."""
    return connection.execute(sa.select(settings.c.value).where(settings.c.key == key)).scalar_one_or_none()


def put_setting(connection: sa.Connection, key: str, value: bytes) -> None:
    """Store a setting."""
    if rows.changed(connection, sa.update(settings).where(settings.c.key == key).values(value=value)) == 0:
        connection.execute(sa.insert(settings), {"key": key, "value": value})


def add_token(connection: sa.Connection, token: TokenRecord, audit: Audit) -> None:
    """Store a token; an expired one gives its name up."""
    expired = tokens.c.expires_at.is_not(None) & (tokens.c.expires_at <= audit.at)
    connection.execute(sa.delete(tokens).where(tokens.c.name == token.name, expired))
    if rows.exists(connection, sa.select(tokens.c.id).where(tokens.c.name == token.name)):
        hint = "choose another name, or remove that token first"
        raise Conflict("token.name_taken", f"there is a valid token named {token.name}", hint=hint)
    columns = msgspec.structs.asdict(token)
    sites = columns.pop("sites")
    connection.execute(sa.insert(tokens), columns)
    if sites:
        connection.execute(sa.insert(token_scopes), {"token": token.id, "sites": sites})
    add_audit(connection, audit)


def token_by_hash(connection: sa.Connection, hash: str) -> TokenRecord | None:
    """Return the token with that hash, expired or not."""
    return rows.load_one(connection, _tokens().where(tokens.c.hash == hash), TokenRecord)


def load_tokens(connection: sa.Connection) -> Sequence[TokenRecord]:
    """Return all tokens, oldest first."""
    return rows.load_all(connection, _tokens().order_by(tokens.c.created_at, tokens.c.id), TokenRecord)


def _tokens() -> sa.Select[Any]:
    sites = sa.func.coalesce(token_scopes.c.sites, "").label("sites")
    return sa.select(tokens, sites).outerjoin(token_scopes, token_scopes.c.token == tokens.c.id)


def remove_token(connection: sa.Connection, token_id: str, audit: Audit) -> None:
    """Forget a token."""
    if rows.changed(connection, sa.delete(tokens).where(tokens.c.id == token_id)) == 0:
        raise Missing("token.unknown", f"there is no token {token_id}")
    add_audit(connection, audit)


def exchange_token(connection: sa.Connection, once_hash: str, token: TokenRecord, audit: Audit) -> bool:
    """Consume a one-time token that is valid at the audit's time, and store `token` in its place."""
    valid = tokens.c.expires_at.is_(None) | (tokens.c.expires_at > audit.at)
    consume = sa.delete(tokens).where(tokens.c.hash == once_hash, tokens.c.once, valid)
    if rows.changed(connection, consume) == 0:
        return False
    add_token(connection, token, audit)
    return True


def touch_token(connection: sa.Connection, token_id: str, at: datetime) -> None:
    """Note that a token was used."""
    connection.execute(sa.update(tokens).where(tokens.c.id == token_id).values(last_used_at=at))
