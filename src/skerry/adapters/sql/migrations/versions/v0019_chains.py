"""Version 0019: the audit is a chain; what is there becomes its beginning.

The format of this version is written out here: later ones must not change what this step makes.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    """Chain the entries that are there, and create the table of chains."""
    op.create_table(
        "chains",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_chains"),
    )
    op.create_table(
        "chained_audits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audits"),
    )
    _chain()
    op.drop_table("audits")
    op.rename_table("chained_audits", "audits")


def _chain() -> None:
    """Number the entries that are there without gaps, beginning at 1, and link them."""
    connection = op.get_bind()
    query = "SELECT at, who, action, subject, outcome FROM audits ORDER BY id"
    found = connection.execute(sa.text(query)).all()
    add = sa.text(
        "INSERT INTO chained_audits (id, at, who, action, subject, outcome, why, decision, previous) "
        "VALUES (:id, :at, :who, :action, :subject, :outcome, '', '', :previous)"
    )
    previous = ""
    for number, (at, who, action, subject, outcome) in enumerate(found, 1):
        row = {"at": at, "who": who, "action": action, "subject": subject, "outcome": outcome}
        connection.execute(add, {"id": number, "previous": previous, **row})
        previous = _digest(number, previous, row)
    if found:
        head = sa.text("INSERT INTO chains (name, number, digest) VALUES ('audit', :number, :digest)")
        connection.execute(head, {"number": len(found), "digest": previous})


def _digest(number: int, previous: str, row: dict[str, object]) -> str:
    """Return the SHA-256 of an entry's canonical JSON: sorted, no blanks, what has its default left out."""
    at = _EPOCH + timedelta(microseconds=int(str(row["at"])))
    entry = {**row, "at": at.isoformat().replace("+00:00", "Z"), "number": number, "previous": previous}
    if not previous:
        del entry["previous"]
    if entry["outcome"] == "done":
        del entry["outcome"]
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
