"""The steps of the hub's schema lead exactly to its tables."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.pool import StaticPool

from skerry.adapters.sql import migrations
from skerry.adapters.sql.schema import metadata
from skerry.adapters.sql.store import SqlHubStore


def engine(path: Path | str = ":memory:") -> sa.Engine:
    made = sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=StaticPool
    )

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(made, "begin", begin)
    return made


def everything(connection: sa.Connection) -> tuple[list[tuple[object, ...]], list[str]]:
    rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master").all()
    plain = [(*row[:3], " ".join((row[3] or "").replace('"', "").split())) for row in rows]
    versions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    return sorted(plain), list(versions)


def statements(connection: sa.Connection) -> dict[str, str]:
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
    # SQLite quotes the name of a table that was renamed.
    return {name: " ".join(sql.replace('"', "").split()) for name, sql in rows if name != "alembic_version"}


def test_the_steps_from_nothing_give_exactly_the_tables_of_the_schema() -> None:
    with engine().begin() as connection:
        migrations.take_steps(connection)
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        migrated = statements(connection)
    with engine().begin() as connection:
        metadata.create_all(connection)
        assert statements(connection) == migrated


def test_a_new_database_is_the_one_that_all_steps_lead_to() -> None:
    with engine().begin() as connection:
        migrations.take_steps(connection)
        stepped = everything(connection)
    with engine().begin() as connection:
        migrations.upgrade(connection)
        assert everything(connection) == stepped


def test_each_earlier_version_is_brought_to_the_newest() -> None:
    with engine().begin() as connection:
        migrations.upgrade(connection)
        newest = everything(connection)
    for version in sorted(migrations.known_revisions()):
        with engine().begin() as connection:
            migrations.take_steps(connection, version)
            migrations.upgrade(connection)
            assert everything(connection) == newest, version


def test_upgrading_again_changes_nothing() -> None:
    with engine().begin() as connection:
        migrations.upgrade(connection)
        before = statements(connection)
        migrations.upgrade(connection)
        assert statements(connection) == before


def test_an_upgrade_that_is_interrupted_leaves_the_database_as_it_was() -> None:
    made = engine()

    def upgrade_and_break() -> None:
        with made.begin() as connection:
            migrations.upgrade(connection)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upgrade_and_break()
    with made.begin() as connection:
        assert statements(connection) == {}


def test_there_is_one_newest_version_and_each_step_is_known() -> None:
    steps = ScriptDirectory.from_config(migrations.steps())
    assert migrations.known_revisions() == {step.revision for step in steps.walk_revisions()}
    assert steps.get_heads() == [max(migrations.known_revisions())]


def test_an_upgrade_from_the_first_version_that_is_interrupted_leaves_it_as_it_was() -> None:
    made = engine()
    with made.begin() as connection:
        migrations.take_steps(connection, "0001")
        before = statements(connection)

    def upgrade_and_break() -> None:
        with made.begin() as connection:
            migrations.upgrade(connection)
            assert statements(connection) != before
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upgrade_and_break()
    with made.begin() as connection:
        assert statements(connection) == before


def test_a_release_of_before_there_was_evidence_has_none(tmp_path: Path) -> None:
    with engine(tmp_path / "hub.db").begin() as connection:
        migrations.take_steps(connection, "0007")
        connection.exec_driver_sql(
            "INSERT INTO releases (name, application, version, digest, size_bytes, created_at, created_by, document,"
            " publisher, vouched_at) VALUES ('meter@1', 'meter', '1', 'sha256:1', 1, 0, 'ann', x'7b7d', '', 0)"
        )
    store = SqlHubStore.open(tmp_path / "hub.db")
    assert [(release.name, release.evidence) for release in store.releases()] == [("meter@1", ())]
    store.close()


def test_a_store_that_is_opened_has_the_newest_schema(tmp_path: Path) -> None:
    SqlHubStore.open(tmp_path / "hub 100%.db").close()
    with engine(tmp_path / "hub 100%.db").begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_new_database_and_one_that_is_up_to_date_need_no_alembic(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from skerry.adapters.sql.store import SqlHubStore\n"
        "for _ in range(2): SqlHubStore.open(pathlib.Path(sys.argv[1])).close()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako')])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "hub.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
