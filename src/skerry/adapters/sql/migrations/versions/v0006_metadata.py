"""Version 0006: the signed metadata of releases, and who publishes which release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of metadata, and note the publisher of each release: nobody, so far."""
    op.create_table(
        "metadata",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("role", "version", name="pk_metadata"),
    )
    with op.batch_alter_table("releases", recreate="always") as table:
        table.add_column(sa.Column("publisher", sa.Text(), nullable=False, server_default=""))
        table.add_column(sa.Column("vouched_at", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("releases", recreate="always") as table:
        table.alter_column("publisher", server_default=None)
        table.alter_column("vouched_at", server_default=None)
