"""Has a host make the values of secrets that are its own alone, and tells of them without the values."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from skerry.agent.vault import VaultEntry, VaultState
from skerry.spec.report import MadeSecret
from skerry.spec.secret import SecretOrder
from skerry.trust.secret_choice import InUse
from skerry.trust.secret_rounds import HeldRound, plan_round

MAX_TOLD = 1000


def make_due(
    ordered: Collection[SecretOrder],
    entries: Mapping[str, VaultEntry],
    uses: Mapping[str, InUse],
    *,
    now: datetime,
) -> tuple[dict[str, VaultEntry], list[VaultEntry]]:
    """Return the entries with those that have to be made now, and which these are.

    What was ordered is made on as long as a value of it is held, also when no document lists it any more. Nothing is
    made of a version that a later one has taken the place of.
    """
    orders = {entry.order.id: entry.order for entry in entries.values() if entry.order is not None}
    orders |= {order.id: order for order in ordered}
    found, made = dict(entries), list[VaultEntry]()
    for order in orders.values():
        use = uses.get(order.name)
        if use is not None and use.id in entries and entries[use.id].version > order.version:
            continue
        held = [
            HeldRound(entry.id, entry.round, entry.not_before)
            for entry in entries.values()
            if entry.order is not None and entry.order.id == order.id
        ]
        every = timedelta(seconds=order.rotate_every_s) if order.rotate_every_s is not None else None
        plan = plan_round(held, rotate_every=every, not_before=order.not_before, now=now)
        if plan is None:
            continue
        entry = _made(order, plan.round, plan.not_before, now)
        found.pop(plan.instead, None)
        found[entry.id] = entry
        made.append(entry)
    return found, made


def told_of_made(state: VaultState) -> tuple[MadeSecret, ...]:
    """Return what the hub is told of values that were made here and are used, or come next."""
    used = {use.id for use in state.uses.values()}
    found = [
        MadeSecret(
            name=entry.name,
            version=entry.version,
            round=entry.round,
            made_at=entry.made_at,
            not_before=entry.not_before,
            used=entry.id in used,
            public=entry.public,
        )
        for entry in sorted(state.entries.values(), key=lambda entry: (entry.name, entry.held.rank))
        if entry.made_at is not None
    ]
    return tuple(found[:MAX_TOLD])


def told_of_next(state: VaultState, now: datetime) -> dict[str, tuple[int, ...]]:
    """Return which versions are held and wait for their time, by name."""
    found: dict[str, set[int]] = {}
    for entry in state.entries.values():
        if entry.order is None and entry.not_before is not None and entry.not_before > now:
            found.setdefault(entry.name, set()).add(entry.version)
    return {name: tuple(sorted(versions)) for name, versions in sorted(found.items())}


def _made(order: SecretOrder, number: int, not_before: datetime | None, now: datetime) -> VaultEntry:
    # Late: of the library that makes keys, a host that makes none needs nothing.
    from skerry.trust.secret_making import make_value

    value = make_value(order.making)
    return VaultEntry(
        secrets.token_hex(16),
        order.name,
        order.version,
        value.value,
        not_before,
        order.expires_at,
        order=order,
        round=number,
        made_at=now,
        public=value.public,
    )
