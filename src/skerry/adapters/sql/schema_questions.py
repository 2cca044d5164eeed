"""The hub's tables of questions and answers. Rules as `skerry.adapters.sql.schema`, whose metadata they are in."""

from __future__ import annotations

import sqlalchemy as sa

from skerry.adapters.sql.schema import Encoded, Instant, metadata

_row_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

questions = sa.Table(
    "questions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("hosts", Encoded(dict[str, str]), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("follow", sa.Boolean, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("asked_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False, index=True),
    sa.Column("ended", sa.Boolean, nullable=False),
)

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("id", _row_id, primary_key=True),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("last", sa.Boolean, nullable=False),
    sa.Column("matched", sa.BigInteger, nullable=False),
    sa.Column("more", sa.Boolean, nullable=False),
    sa.Column("since", Instant),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Index("ix_answers_question", "question", "host", "run", "number", unique=True),
)

# What hosts told unasked, once for each of its ids.
crashes = sa.Table(
    "crashes",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("application", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False, index=True),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
