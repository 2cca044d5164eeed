"""Version 0012: relays, their tokens, and who comes by which of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of relays."""
    op.create_table(
        "relays",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("state_expires_at", sa.BigInteger()),
        sa.Column("state", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("name", name="pk_relays"),
    )
    op.create_table(
        "relay_members",
        sa.Column("relay", sa.Text(), nullable=False),
        sa.Column("sign_key", sa.Text(), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger()),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("generation_held", sa.BigInteger(), nullable=False),
        sa.Column("clock_offset_s", sa.Float()),
        sa.Column("tls_key", sa.Text(), nullable=False),
        sa.Column("view_at", sa.BigInteger()),
        sa.Column("view", sa.LargeBinary()),
        sa.ForeignKeyConstraint(
            ["relay"], ["relays.name"], name="fk_relay_members_relay", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("relay", name="pk_relay_members"),
        sa.UniqueConstraint("sign_key", name="uq_relay_members_sign_key"),
    )
    op.create_table(
        "relay_tokens",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("relay", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("replaces", sa.Boolean(), nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["relay"], ["relays.name"], name="fk_relay_tokens_relay", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name="pk_relay_tokens"),
    )
    for table, column, other in (("relay_hosts", "host", "hosts"), ("relay_relays", "below", "relays")):
        op.create_table(
            table,
            sa.Column("relay", sa.Text(), nullable=False),
            sa.Column(column, sa.Text(), nullable=False),
            sa.Column("seen_at", sa.BigInteger(), nullable=False),
            sa.ForeignKeyConstraint(["relay"], ["relays.name"], name=f"fk_{table}_relay", ondelete="CASCADE"),
            sa.ForeignKeyConstraint(
                [column], [f"{other}.name"], name=f"fk_{table}_{column}", ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint("relay", column, name=f"pk_{table}"),
        )
