"""Version 0010: waves of rollouts, and what people have said of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, empty: rollouts that run offer what is pending in the default waves from now on."""
    with op.batch_alter_table("rollouts", recreate="always") as table:
        table.add_column(sa.Column("steering", sa.LargeBinary(), nullable=False, server_default="{}"))
    with op.batch_alter_table("rollouts", recreate="always") as table:
        table.alter_column("steering", server_default=None)
