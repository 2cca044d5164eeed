"""Version 0008: policies, the evidence of releases (none, so far), and rollouts that began in spite of a policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of policies, evidence and overrides."""
    op.create_table(
        "policies",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_policies"),
    )
    evidence = op.create_table(
        "evidence",
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release"], ["releases.name"], name="fk_evidence_release", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("release", name="pk_evidence"),
    )
    releases = sa.table("releases", sa.column("name", sa.Text()))
    nothing = sa.literal(b"[]", sa.LargeBinary())
    op.execute(sa.insert(evidence).from_select(["release", "evidence"], sa.select(releases.c.name, nothing)))
    op.create_table(
        "overrides",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("override", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout"], ["rollouts.name"], name="fk_overrides_rollout", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout", name="pk_overrides"),
    )
