"""Version 0018: what hosts measure of themselves and of applications."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, empty."""
    op.create_table(
        "telemetry_hosts",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.Column("streams", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("host", name="pk_telemetry_hosts"),
    )
    op.create_table(
        "telemetry_series",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=False),
        sa.Column("newest", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_telemetry_series"),
    )
    for column in ("host", "name", "newest"):
        op.create_index(f"ix_telemetry_series_{column}", "telemetry_series", [column])
    op.create_table(
        "telemetry_chunks",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("resolution_s", sa.Integer(), nullable=False),
        sa.Column("begin", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("series", "resolution_s", "begin", name="pk_telemetry_chunks"),
    )
    op.create_index("ix_telemetry_chunks_begin", "telemetry_chunks", ["resolution_s", "begin"])
