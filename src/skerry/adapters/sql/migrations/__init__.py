"""Steps of the hub's schema, packaged with it and taken when the database is opened.

A version that was released is never changed; what comes later is a version of its own. All steps of one
opening are one transaction, so that a power cut leaves the old schema or the new one. An empty database is given
the newest tables at once, which the steps lead to as well; a test compares the two.

Alembic is imported for a database of an earlier version alone: it takes some MB, and a good part of a hub's start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from skerry.adapters.sql.schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

_known = frozenset(file.name[1:5] for file in (Path(__file__).parent / "versions").glob("v*.py"))
_newest = max(_known)

# As Alembic makes it.
_stamp = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the newest version, inside the caller's transaction."""
    names = sa.inspect(connection).get_table_names()
    if not names:
        metadata.create_all(connection)
        _stamp.create(connection)
        connection.execute(_stamp.insert().values(version_num=_newest))
    elif connection.scalars(sa.select(_stamp.c.version_num)).all() != [_newest]:
        take_steps(connection)


def take_steps(connection: sa.Connection, to: str = "head") -> None:
    """Bring the schema step by step to the newest version, or another, inside the caller's transaction."""
    from alembic import command

    config = steps()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def known_revisions() -> frozenset[str]:
    """Return all schema versions this code knows."""
    return _known


def steps() -> Config:
    """Return where Alembic finds the steps."""
    from alembic.config import Config

    config = Config()
    # Alembic reads its options with interpolation: a percent sign in a path must be doubled.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config
