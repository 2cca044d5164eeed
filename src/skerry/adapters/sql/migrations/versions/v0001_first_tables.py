"""Version 0001: operators, fleet, releases and rollouts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "settings",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )
    _create_operators()
    _create_fleet()
    _create_host_states()
    _create_releases()


def _create_operators() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.Column("once", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
    )
    op.create_index("ix_tokens_name", "tokens", ["name"])
    op.create_table(
        "audits",
        sa.Column("id", _row_id, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audits"),
        sqlite_autoincrement=True,
    )


def _create_fleet() -> None:
    op.create_table(
        "sites",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("desired_expires_at", sa.BigInteger()),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("desired", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("name", name="pk_sites"),
    )
    op.create_table(
        "join_tokens",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_join_tokens"),
        sa.ForeignKeyConstraint(["site"], ["sites.name"], name="fk_join_tokens_site", ondelete="CASCADE"),
    )
    op.create_index("ix_join_tokens_site", "join_tokens", ["site"])
    op.create_table(
        "hosts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("sign_key", sa.Text(), nullable=False),
        sa.Column("seal_key", sa.Text(), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger()),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("generation_held", sa.BigInteger(), nullable=False),
        sa.Column("clock_offset_s", sa.Float()),
        sa.PrimaryKeyConstraint("name", name="pk_hosts"),
        sa.ForeignKeyConstraint(["site"], ["sites.name"], name="fk_hosts_site"),
    )
    op.create_index("ix_hosts_site", "hosts", ["site"])


def _create_host_states() -> None:
    op.create_table(
        "host_states",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.BigInteger()),
        sa.Column("observed", sa.LargeBinary()),
        sa.Column("facts", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("host", name="pk_host_states"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_host_states_host", ondelete="CASCADE"),
    )
    op.create_table(
        "events",
        sa.Column("id", _row_id, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_host", "events", ["host", "id"])
    op.create_index("ix_events_site", "events", ["site", "id"])


def _create_releases() -> None:
    op.create_table(
        "releases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_releases"),
    )
    op.create_table(
        "rollouts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("sites", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rollouts"),
    )
    op.create_index("ix_rollouts_state", "rollouts", ["state"])
    op.create_table(
        "assignments",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("site", "application", name="pk_assignments"),
        sa.ForeignKeyConstraint(["site"], ["sites.name"], name="fk_assignments_site", ondelete="CASCADE"),
    )
    op.create_index("ix_assignments_release", "assignments", ["release"])
