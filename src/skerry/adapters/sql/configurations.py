"""Configurations, and the revisions of them that rollouts name."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.audit_log import add_audit
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.releases import load_assignments, load_rollouts
from skerry.adapters.sql.schema import configuration_revisions, configurations
from skerry.kit.editions import revision_of
from skerry.kit.errors import Missing
from skerry.ports.configurations import (
    ConfigurationChanges,
    ConfigurationRecord,
    Configurations,
    RevisionRecord,
)
from skerry.ports.host_identities import Audit


class SqlConfigurations(Configurations):
    """The part of the SQL store that is about configurations."""

    _database: Database

    def configurations(self, application: str | None = None) -> Sequence[ConfigurationRecord]:
        query = sa.select(configurations).order_by(configurations.c.name)
        query = query if application is None else query.where(configurations.c.application == application)
        return self._database.read(lambda connection: rows.load_all(connection, query, ConfigurationRecord))

    def remove_configuration(self, name: str, audit: Audit) -> None:
        self._database.write(lambda connection: _remove(connection, name, audit))

    def revision(self, application: str, revision: str) -> RevisionRecord | None:
        query = sa.select(configuration_revisions).where(_is(application, revision))
        return self._database.read(lambda connection: rows.load_one(connection, query, RevisionRecord))


def put_configurations(connection: sa.Connection, changes: ConfigurationChanges) -> None:
    """Store configurations, each in the place of what had its name, and revisions that are not there yet."""
    for document in changes.documents:
        connection.execute(sa.delete(configurations).where(configurations.c.name == document.name))
        rows.add(connection, configurations, document)
    for record in changes.revisions:
        query = sa.select(configuration_revisions).where(_is(record.application, record.revision))
        if not rows.exists(connection, query):
            _forget_unnamed(connection, record.application)
            rows.add(connection, configuration_revisions, record)


def _forget_unnamed(connection: sa.Connection, application: str) -> None:
    named = {one.release for one in load_assignments(connection, None)}
    for rollout in load_rollouts(connection, running_only=False):
        named |= {rollout.release, *(progress.previous for progress in rollout.sites.values())}
    kept = {revision_of(name) for name in named if name.startswith(f"{application}@")}
    there = configuration_revisions.c
    query = sa.select(there.revision).where(there.application == application)
    for revision in connection.execute(query).scalars().all():
        if revision not in kept:
            connection.execute(sa.delete(configuration_revisions).where(_is(application, revision)))


def _remove(connection: sa.Connection, name: str, audit: Audit) -> None:
    if rows.changed(connection, sa.delete(configurations).where(configurations.c.name == name)) == 0:
        raise Missing("configuration.unknown", f"there is no configuration {name}")
    add_audit(connection, audit)


def _is(application: str, revision: str) -> sa.ColumnElement[bool]:
    there = configuration_revisions.c
    return (there.application == application) & (there.revision == revision)
