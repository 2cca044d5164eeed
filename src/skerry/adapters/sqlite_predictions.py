"""SqlitePredictions: predictions that wait for their labels, in one SQLite file of its own. Standard library only.

It is apart from what the agent must not lose: where it is damaged it is set aside, and another begins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from skerry.adapters.sqlite_documents import DOCUMENTS, SqliteDocuments
from skerry.adapters.sqlite_opening import open_database
from skerry.ports.prediction_store import Accepted, Named
from skerry.telemetry.quality import Joined, Origin

BATCH_KEPT_S = 86_400

_schema = (
    DOCUMENTS,
    (
        "CREATE TABLE origins (key INTEGER PRIMARY KEY, app TEXT NOT NULL, component TEXT NOT NULL, "
        "release TEXT NOT NULL, model TEXT NOT NULL, variant TEXT NOT NULL, "
        "UNIQUE (app, component, release, model, variant))"
    ),
    (
        "CREATE TABLE predictions (app TEXT NOT NULL, id TEXT NOT NULL, origin INTEGER NOT NULL, at INTEGER NOT NULL, "
        "label TEXT NOT NULL, score REAL, labelled INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (app, id)) WITHOUT ROWID"
    ),
    "CREATE INDEX predictions_at ON predictions (at)",
    (
        "CREATE TABLE labels (app TEXT NOT NULL, id TEXT NOT NULL, truth TEXT NOT NULL, at INTEGER NOT NULL, "
        "PRIMARY KEY (app, id)) WITHOUT ROWID"
    ),
    "CREATE INDEX labels_at ON labels (at)",
    "CREATE TABLE batches (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID",
    "PRAGMA user_version = 1",
)
_put = "INSERT OR IGNORE INTO predictions (app, id, origin, at, label, score) VALUES (?, ?, ?, ?, ?, ?)"
_waiting = (
    "SELECT p.id, o.app, o.component, o.release, o.model, o.variant, p.at, p.label, p.score, l.truth "
    "FROM labels l JOIN predictions p ON p.app = l.app AND p.id = l.id JOIN origins o ON o.key = p.origin "
    "WHERE l.app = ? AND l.id = ?"
)
_forget_oldest = (
    "DELETE FROM {0} WHERE (app, id) IN (SELECT app, id FROM {0} ORDER BY at LIMIT "
    "max((SELECT count(*) FROM {0}) - ?, 0))"
)


class SqlitePredictions(SqliteDocuments):
    """A `PredictionStore`."""

    @classmethod
    def open(cls, path: Path, *, patience_s: float = 10.0) -> SqlitePredictions:
        """Open or create the file; a damaged one is set aside.

        Raises:
            Unavailable: it cannot be opened now (`disk.full`, `database.locked`, `database.failed`).
        """
        connection, _ = open_database(path, (_schema,), patience_s=patience_s)
        return cls(connection, str(path))

    def accept(
        self,
        batch: str,
        app: str,
        *,
        predictions: Sequence[Named],
        labels: Mapping[str, str],
        at: int,
    ) -> Accepted:
        """See `PredictionStore.accept`."""
        with self._changing() as connection:
            if batch and not _is_new(connection, f"{app}/{batch}", at):
                return Accepted()
            fresh = [one.prediction for one in predictions if _keep(connection, app, one)]
            connection.executemany(
                "INSERT OR IGNORE INTO labels VALUES (?, ?, ?, ?)",
                [(app, key, truth, at) for key, truth in labels.items()],
            )
            touched = dict.fromkeys([*(one.id for one in predictions if one.id), *labels])
            joined = [found for key in touched if (found := _join(connection, app, key)) is not None]
        return Accepted(fresh, joined)

    def trim(self, *, before: int, most: int) -> int:
        """See `PredictionStore.trim`."""
        with self._changing() as connection:
            connection.execute("DELETE FROM batches WHERE at < ?", (max(before, 0),))
            for table in ("predictions", "labels"):
                connection.execute(f"DELETE FROM {table} WHERE at < ?", (before,))  # noqa: S608 (a constant)
            connection.execute(_forget_oldest.format("labels"), (most,))
            return connection.execute(_forget_oldest.format("predictions"), (most,)).rowcount


def _is_new(connection: sqlite3.Connection, batch: str, at: int) -> bool:
    connection.execute("DELETE FROM batches WHERE at < ?", (at - BATCH_KEPT_S,))
    return connection.execute("INSERT OR IGNORE INTO batches VALUES (?, ?)", (batch, at)).rowcount == 1


def _keep(connection: sqlite3.Connection, app: str, named: Named) -> bool:
    """Keep a prediction that has an id; tell whether it counts."""
    if not named.id:
        return True
    one = named.prediction
    row = (app, named.id, _origin(connection, one.origin), one.at, one.label, one.score)
    return connection.execute(_put, row).rowcount == 1


def _origin(connection: sqlite3.Connection, origin: Origin) -> int:
    values = (origin.app, origin.component, origin.release, origin.model, origin.variant)
    connection.execute(
        "INSERT OR IGNORE INTO origins (app, component, release, model, variant) VALUES (?, ?, ?, ?, ?)",
        values,
    )
    found = connection.execute(
        "SELECT key FROM origins WHERE app = ? AND component = ? AND release = ? AND model = ? AND variant = ?",
        values,
    ).fetchone()
    return int(found[0])


def _join(connection: sqlite3.Connection, app: str, key: str) -> Joined | None:
    """Return a prediction with the label that waits for it, unless it has one; the label goes either way."""
    row = connection.execute(_waiting, (app, key)).fetchone()
    if row is None:
        return None
    connection.execute("DELETE FROM labels WHERE app = ? AND id = ?", (app, key))
    changed = connection.execute(
        "UPDATE predictions SET labelled = 1 WHERE app = ? AND id = ? AND labelled = 0", (app, key)
    )
    if not changed.rowcount:
        return None
    _, *origin, at, label, score, truth = row
    return Joined(origin=Origin(*origin), at=at, label=label, score=score, truth=truth)
