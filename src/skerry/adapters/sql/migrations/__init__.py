"""Steps of the hub's schema, packaged with it and taken when the database is opened.

A version that was released is never changed; what comes later is a version of its own. All steps of one
opening are one transaction, so that a power cut leaves the old schema or the new one.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Bring the schema to the newest version, or another, inside the caller's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def known_revisions() -> frozenset[str]:
    """Return all schema versions this code knows."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config()
    # Alembic reads its options with interpolation: a percent sign in a path must be doubled.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config
