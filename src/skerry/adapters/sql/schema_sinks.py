"""The hub's table of sinks. Rules as `skerry.adapters.sql.schema`, of whose metadata it is."""

from __future__ import annotations

import sqlalchemy as sa

from skerry.adapters.sql.schema import Instant, metadata

sinks = sa.Table(
    "sinks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("changed_at", Instant, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("delivered_at", Instant),
    sa.Column("lost", sa.BigInteger, nullable=False),
    sa.Column("trouble", sa.Text, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("held_until", Instant),
)
