"""Run by Alembic: takes the steps on the connection that `upgrade` was given."""

from __future__ import annotations

from alembic import context

from skerry.adapters.sql.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll a CREATE TABLE back; Alembic assumes that it cannot.
    transactional_ddl=True,
)
context.run_migrations()
