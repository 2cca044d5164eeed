"""Version 0011: who decides a rollout, and what was decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both, empty: rollouts that run have no decisions of before."""
    op.create_table(
        "rollout_leases",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", name="pk_rollout_leases"),
    )
    op.create_table(
        "decisions",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("effects", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout"], ["rollouts.name"], name="fk_decisions_rollout", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout", "number", name="pk_decisions"),
    )
