"""The hub's tables of what hosts measured. Rules as `skerry.adapters.sql.schema`, of whose metadata they are a part."""

from __future__ import annotations

import sqlalchemy as sa

from skerry.adapters.sql.schema import Encoded, Instant, metadata
from skerry.ports.telemetry_store import Stream
from skerry.telemetry.windows import Labels

# What each host has told so far of its telemetry. `version` lets two who take from one host see each other.
telemetry_hosts = sa.Table(
    "telemetry_hosts",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("newest", sa.BigInteger, nullable=False),
    sa.Column("streams", Encoded(tuple[Stream, ...]), nullable=False),
)

telemetry_series = sa.Table(
    "telemetry_series",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False, index=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("labels", Encoded(Labels), nullable=False),
    sa.Column("newest", sa.BigInteger, nullable=False, index=True),
)

# Windows of one series and length over a stretch of time; `total` is all of them as one.
telemetry_chunks = sa.Table(
    "telemetry_chunks",
    metadata,
    sa.Column("series", sa.Text, primary_key=True),
    sa.Column("resolution_s", sa.Integer, primary_key=True),
    sa.Column("begin", sa.BigInteger, primary_key=True),
    sa.Column("total", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Index("ix_telemetry_chunks_begin", "resolution_s", "begin"),
)
