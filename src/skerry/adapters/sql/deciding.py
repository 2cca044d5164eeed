"""Leases of rollouts, and the decisions that were made under them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.schema import decisions, rollout_leases, rollouts
from skerry.kit.errors import Conflict
from skerry.ports.deciding import DecisionRecord, Lease, Turn
from skerry.ports.host_identities import Audit

KEEP_FIRST = 50
KEEP_NEWEST = 500


def load_lease(connection: sa.Connection, rollout: str) -> Lease | None:
    """Return the newest lease of a rollout."""
    return rows.load_one(
        connection, sa.select(rollout_leases).where(rollout_leases.c.rollout == rollout), Lease
    )


def take_lease(connection: sa.Connection, wanted: Lease, now: datetime, *, latest: datetime) -> Lease | None:
    """Take or prolong a lease; one that ends after `latest` is of a clock that was wrong."""
    leases = rollout_leases.c
    if not rows.exists(connection, sa.select(rollouts.c.name).where(rollouts.c.name == wanted.rollout)):
        return None
    free = (leases.holder == wanted.holder) | (leases.expires_at <= now) | (leases.expires_at > latest)
    mine = (leases.holder == wanted.holder) & (leases.token == wanted.token)
    take = (
        sa.update(rollout_leases)
        .where(leases.rollout == wanted.rollout, free)
        .values(
            holder=wanted.holder,
            token=sa.case((mine, leases.token), else_=leases.token + 1),
            expires_at=wanted.expires_at,
        )
    )
    if rows.changed(connection, take) == 0:
        if load_lease(connection, wanted.rollout) is not None:
            return None
        first = {"rollout": wanted.rollout, "holder": wanted.holder, "expires_at": wanted.expires_at}
        connection.execute(sa.insert(rollout_leases), {**first, "token": 1})
    return load_lease(connection, wanted.rollout)


def end_leases(connection: sa.Connection, holder: str, now: datetime) -> None:
    """End what a holder has."""
    leases = rollout_leases.c
    connection.execute(
        sa.update(rollout_leases)
        .where(leases.holder == holder, leases.expires_at > now)
        .values(token=leases.token + 1, expires_at=now)
    )


def use_turn(connection: sa.Connection, turn: Turn) -> None:
    """Refuse whoever's turn it is no more, else remember the decision."""
    newest = sa.select(rollout_leases.c.token).where(
        rollout_leases.c.rollout == turn.lease.rollout, rollout_leases.c.holder == turn.lease.holder
    )
    if connection.execute(newest.with_for_update()).scalar_one_or_none() != turn.lease.token:
        name = turn.lease.rollout
        raise Conflict("rollout.lease_lost", f"rollout {name} is decided by another replica now")
    if turn.decision is not None:
        _add(connection, turn.decision)


def load_decisions(connection: sa.Connection, rollout: str, limit: int) -> Sequence[DecisionRecord]:
    """Return the newest decisions of a rollout, newest first."""
    query = sa.select(decisions).where(decisions.c.rollout == rollout)
    return rows.load_all(connection, query.order_by(decisions.c.number.desc()).limit(limit), DecisionRecord)


def _add(connection: sa.Connection, decision: DecisionRecord) -> None:
    mine = decisions.c.rollout == decision.rollout
    last = connection.execute(sa.select(sa.func.max(decisions.c.number)).where(mine)).scalar_one()
    number = (last or 0) + 1
    values = {name: getattr(decision, name) for name in decision.__struct_fields__}
    connection.execute(sa.insert(decisions), values | {"number": number})
    audit = Audit(
        at=decision.at,
        who="hub",
        action="rollout.decide",
        subject=f"rollout:{decision.rollout}",
        outcome=decision.state,
        why=decision.why,
        decision=f"{decision.rollout}#{number}",
    )
    add_audit(connection, audit)
    between = (decisions.c.number > KEEP_FIRST) & (decisions.c.number <= number - KEEP_NEWEST)
    connection.execute(sa.delete(decisions).where(mine, between))
