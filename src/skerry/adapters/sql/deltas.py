"""Which deltas there are between blobs."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.schema import deltas
from skerry.ports.hub_store import DeltaRecord


def load_deltas(connection: sa.Connection) -> Sequence[DeltaRecord]:
    """Return what is known, oldest first."""
    order = (deltas.c.made_at, deltas.c.target, deltas.c.base)
    return rows.load_all(connection, sa.select(deltas).order_by(*order), DeltaRecord)


def put_delta(connection: sa.Connection, record: DeltaRecord) -> None:
    """Store what is known of a pair, in the place of what was."""
    remove_delta(connection, record.base, record.target)
    rows.add(connection, deltas, record)


def remove_delta(connection: sa.Connection, base: str, target: str) -> None:
    """Forget a pair; an unknown one is fine."""
    connection.execute(sa.delete(deltas).where(deltas.c.base == base, deltas.c.target == target))
