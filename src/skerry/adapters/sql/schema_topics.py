"""The hub's tables of messages from hosts' buses. Rules as `skerry.adapters.sql.schema`, of whose metadata they are."""

from __future__ import annotations

import sqlalchemy as sa

from skerry.adapters.sql.schema import Encoded, Instant, metadata
from skerry.spec.uplink import TopicDrop
from skerry.telemetry.received import Ranges

# Ids are cursors of readers: AUTOINCREMENT never gives out again what was trimmed.
topic_messages = sa.Table(
    "topic_messages",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("received_at", Instant, nullable=False, index=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

# What came of each queue of a host.
topic_sources = sa.Table(
    "topic_sources",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("received", Encoded(Ranges), nullable=False),
    sa.Column("dropped", Encoded(tuple[TopicDrop, ...]), nullable=False),
    sa.Column("waiting", sa.BigInteger, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
)

# Messages for applications at sites.
downlinks = sa.Table(
    "downlinks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, primary_key=True, index=True),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)
