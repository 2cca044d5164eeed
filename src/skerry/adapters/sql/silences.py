"""For how long hosts were silent, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from skerry.adapters.sql.schema import host_silences
from skerry.ports.presence import MAX_SILENCES

_note = sqlite.insert(host_silences).on_conflict_do_nothing()


def note(connection: sa.Connection, host: str, begun_at: datetime, ended_at: datetime) -> None:
    """Store a silence once, and forget what is too old of the host."""
    connection.execute(_note, {"host": host, "begun_at": begun_at, "ended_at": ended_at})
    own = host_silences.c.host == host
    newest = sa.select(host_silences.c.begun_at).where(own).order_by(host_silences.c.begun_at.desc())
    kept = newest.limit(MAX_SILENCES)
    connection.execute(sa.delete(host_silences).where(own, host_silences.c.begun_at.not_in(kept)))


def load(connection: sa.Connection) -> Mapping[str, Sequence[timedelta]]:
    """Return the lengths of the silences of each host, the newest last."""
    found: dict[str, list[timedelta]] = {}
    order = (host_silences.c.host, host_silences.c.begun_at)
    for host, begun_at, ended_at in connection.execute(sa.select(host_silences).order_by(*order)):
        found.setdefault(host, []).append(ended_at - begun_at)
    return found
