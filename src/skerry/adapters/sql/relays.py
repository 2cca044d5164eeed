"""Relays: their documents, keys, states, and who comes by which of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.schema import hosts, relay_hosts, relay_members, relay_relays, relay_tokens, relays
from skerry.kit.errors import Bug, Conflict, Denied, Missing
from skerry.ports.host_identities import Audit
from skerry.ports.relay_records import RelayKeys, RelayRecord, RelaySeen, RelayTokenRecord, Way

_members = [column for column in relay_members.c if column.name != "relay"]
_with_members = sa.select(
    *(column for column in relays.c if column.name != "state"), *_members
).outerjoin_from(relays, relay_members)
_defaults = dict.fromkeys(("sign_key", "tls_key"), "") | dict.fromkeys(("sequence", "generation_held"), 0)


class _StoredToken(RelayTokenRecord, frozen=True, kw_only=True):
    used: bool


def put_relays(connection: sa.Connection, documents: Mapping[str, bytes]) -> None:
    """Store relays' documents; a relay that is there keeps all else."""
    for name, document in documents.items():
        change = sa.update(relays).where(relays.c.name == name).values(document=document)
        if rows.changed(connection, change) == 0:
            connection.execute(sa.insert(relays), {"name": name, "generation": 0, "document": document})


def load_relays(connection: sa.Connection) -> Sequence[RelayRecord]:
    """Return all relays by name, without their states."""
    return _load(connection, _with_members.order_by(relays.c.name))


def load_relay(connection: sa.Connection, name: str) -> RelayRecord | None:
    """Return a relay without its state."""
    found = _load(connection, _with_members.where(relays.c.name == name))
    return found[0] if found else None


def remove_relay(connection: sa.Connection, name: str, audit: Audit) -> None:
    """Forget a relay; what refers to it goes by its foreign keys."""
    if rows.changed(connection, sa.delete(relays).where(relays.c.name == name)) == 0:
        raise _unknown(name)
    add_audit(connection, audit)


def add_token(connection: sa.Connection, token: RelayTokenRecord, audit: Audit) -> None:
    """Store a token of a known relay; those that have expired go."""
    if not rows.exists(connection, sa.select(relays.c.name).where(relays.c.name == token.relay)):
        raise _unknown(token.relay)
    connection.execute(sa.delete(relay_tokens).where(relay_tokens.c.expires_at < token.created_at))
    connection.execute(sa.insert(relay_tokens), {**msgspec.structs.asdict(token), "used": False})
    add_audit(connection, audit)


def enroll_relay(connection: sa.Connection, token_hash: str, keys: RelayKeys, audit: Audit) -> RelayRecord:
    """Use a token once and store the relay's keys, or return the very same relay that is there."""
    found = sa.select(relay_tokens).where(relay_tokens.c.hash == token_hash)
    token = rows.load_one(connection, found, _StoredToken)
    if token is None or token.relay != keys.relay:
        raise Denied("join.unknown", f"there is no such join token for relay {keys.relay}")
    known = load_relay(connection, keys.relay)
    assert known is not None  # the token would have gone with it
    if known.sign_key == keys.sign_key:
        return known  # the first answer was lost on its way
    if token.used:
        raise Denied("join.used_up", "the join token is used up", hint="ask for a new one")
    if token.expires_at <= keys.enrolled_at:
        message = f"the join token expired at {token.expires_at}"
        raise Denied("join.expired", message, hint="ask for a new one")
    if known.sign_key and not token.replaces:
        hint = f"if this one replaces it: skerry relay token {keys.relay} --replace"
        raise Conflict("relay.enrolled", f"relay {keys.relay} has enrolled with other keys", hint=hint)
    if rows.exists(
        connection, sa.select(relay_members.c.relay).where(relay_members.c.sign_key == keys.sign_key)
    ):
        raise Conflict("relay.key_taken", "another relay has that key")
    connection.execute(sa.update(relay_tokens).where(relay_tokens.c.hash == token_hash).values(used=True))
    connection.execute(sa.delete(relay_members).where(relay_members.c.relay == keys.relay))
    values = {**msgspec.structs.asdict(keys), "sequence": 0, "generation_held": 0}
    connection.execute(sa.insert(relay_members), values)
    add_audit(connection, msgspec.structs.replace(audit, action="relay.replace") if known.sign_key else audit)
    stored = load_relay(connection, keys.relay)
    assert stored is not None
    return stored


def apply_report(connection: sa.Connection, seen: RelaySeen) -> int:
    """Store what a relay says of itself, once; return the sequence then stored."""
    values: dict[str, Any] = {
        "sequence": seen.sequence,
        "last_seen_at": seen.seen_at,
        "clock_offset_s": seen.clock_offset_s,
        "generation_held": seen.generation,
    }
    if seen.tls_key:
        values["tls_key"] = seen.tls_key
    if seen.view is not None:
        values |= {"view": seen.view, "view_at": seen.seen_at}
    change = sa.update(relay_members).where(
        relay_members.c.relay == seen.relay, relay_members.c.sequence < seen.sequence
    )
    if rows.changed(connection, change.values(values)):
        return seen.sequence
    stored = sa.select(relay_members.c.sequence).where(relay_members.c.relay == seen.relay)
    sequence = connection.execute(stored).scalar_one_or_none()
    if sequence is None:
        raise _unknown(seen.relay)
    return int(sequence)


def load_state(connection: sa.Connection, name: str) -> bytes | None:
    """Return the RelayState envelope last issued to a relay."""
    return connection.execute(sa.select(relays.c.state).where(relays.c.name == name)).scalar_one_or_none()


class IssuedRelayState(msgspec.Struct, frozen=True):
    """A signed RelayState to be stored in the place of that of generation `after`."""

    generation: int
    state: bytes
    expires_at: datetime
    after: int


def issue_state(connection: sa.Connection, relay: str, issued: IssuedRelayState) -> None:
    """Store a relay's RelayState if the one before has the generation `after`, which is lower."""
    if issued.generation <= issued.after:
        raise Bug("relay_state.not_above", f"generation {issued.generation} is not above {issued.after}")
    change = sa.update(relays).where(relays.c.name == relay, relays.c.generation == issued.after)
    values = {
        "generation": issued.generation,
        "state": issued.state,
        "state_expires_at": issued.expires_at,
    }
    if rows.changed(connection, change.values(values)) == 0:
        if not rows.exists(connection, sa.select(relays.c.name).where(relays.c.name == relay)):
            raise _unknown(relay)
        message = f"somebody else has issued to relay {relay} since generation {issued.after}"
        raise Conflict("relay.generation_moved", message, relay=relay)


def load_host_ways(connection: sa.Connection) -> Sequence[Way]:
    """Return by which relays hosts have come."""
    columns = (relay_hosts.c.relay, relay_hosts.c.host, relay_hosts.c.seen_at, hosts.c.site)
    return [Way(*row) for row in connection.execute(sa.select(*columns).join_from(relay_hosts, hosts))]


def load_relay_ways(connection: sa.Connection) -> Sequence[Way]:
    """Return by which relays other relays have come."""
    columns = (relay_relays.c.relay, relay_relays.c.below, relay_relays.c.seen_at)
    return [Way(*row) for row in connection.execute(sa.select(*columns))]


def put_ways(connection: sa.Connection, of_hosts: Sequence[Way], of_relays: Sequence[Way]) -> None:
    """Store ways; whoever has gone in the meantime is left out."""
    for table, name, there, ways in (
        (relay_hosts, relay_hosts.c.host, hosts.c.name, of_hosts),
        (relay_relays, relay_relays.c.below, relays.c.name, of_relays),
    ):
        for way in ways:
            change = sa.update(table).where(table.c.relay == way.relay, name == way.name)
            if rows.changed(connection, change.values(seen_at=way.seen_at)):
                continue
            if not rows.exists(connection, sa.select(there).where(there == way.name)):
                continue
            if rows.exists(connection, sa.select(relays.c.name).where(relays.c.name == way.relay)):
                values = {"relay": way.relay, name.name: way.name, "seen_at": way.seen_at}
                connection.execute(sa.insert(table), values)


def trim_ways(connection: sa.Connection, before: datetime) -> None:
    """Forget the ways by which nobody has come since."""
    for table in (relay_hosts, relay_relays):
        connection.execute(sa.delete(table).where(table.c.seen_at < before))


def _load(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[RelayRecord]:
    result = connection.execute(query)
    names = list(result.keys())
    found: list[RelayRecord] = []
    for row in result:
        values = dict(zip(names, row, strict=True))
        values |= {name: value for name, value in _defaults.items() if values[name] is None}
        found.append(RelayRecord(**values))
    return found


def _unknown(name: str) -> Missing:
    return Missing("relay.unknown", f"there is no relay {name}")
