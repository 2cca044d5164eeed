"""Version 0005: which sites an API token is limited to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of the scopes of tokens."""
    op.create_table(
        "token_scopes",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("sites", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["token"], ["tokens.id"], name="fk_token_scopes_token", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token", name="pk_token_scopes"),
    )
