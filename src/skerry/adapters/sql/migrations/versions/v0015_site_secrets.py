"""Version 0015: secrets that hosts make for themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add how values are made, and where: all that are there were made or given at the hub."""
    with op.batch_alter_table("secret_versions", recreate="always") as table:
        table.add_column(sa.Column("making", sa.LargeBinary()))
        table.add_column(sa.Column("at_site", sa.Boolean(), nullable=False, server_default="0"))
        table.add_column(sa.Column("rotate_every_s", sa.BigInteger()))
    with op.batch_alter_table("secret_versions", recreate="always") as table:
        table.alter_column("at_site", server_default=None)
