"""Version 0007: the sessions of each host's reports and its quarantine, and hosts that a join token replaces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of lineages and of replacements."""
    op.create_table(
        "join_replacements",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["hash"], ["join_tokens.hash"], name="fk_join_replacements_hash", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name="pk_join_replacements"),
    )
    op.create_table(
        "host_lineages",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("lineage", sa.LargeBinary(), nullable=False),
        sa.Column("quarantined_at", sa.BigInteger()),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_host_lineages_host", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host", name="pk_host_lineages"),
    )
