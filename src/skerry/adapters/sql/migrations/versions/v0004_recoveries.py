"""Version 0004: which sites may be ahead of this database, because it was restored or put back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of recoveries."""
    op.create_table(
        "recoveries",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("known", sa.BigInteger(), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("held_since", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["site"], ["sites.name"], name="fk_recoveries_site", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site", name="pk_recoveries"),
    )
