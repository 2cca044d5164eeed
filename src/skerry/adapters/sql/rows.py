"""Rows from and to records: a record's fields are named as the columns they are stored in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

R = TypeVar("R", bound=msgspec.Struct)


def load_all(connection: sa.Connection, query: sa.Select[Any], kind: type[R]) -> Sequence[R]:
    """Return the query's rows as records."""
    result = connection.execute(query)
    names = list(result.keys())
    return [kind(**dict(zip(names, row, strict=True))) for row in result]


def load_one(connection: sa.Connection, query: sa.Select[Any], kind: type[R]) -> R | None:
    """Return the query's first row as a record, or None."""
    result = connection.execute(query)
    row = result.first()
    return None if row is None else kind(**dict(zip(result.keys(), row, strict=True)))


def exists(connection: sa.Connection, query: sa.Select[Any]) -> bool:
    """Tell whether the query has a row."""
    return connection.execute(query.limit(1)).first() is not None


def add(connection: sa.Connection, table: sa.Table, record: msgspec.Struct) -> None:
    """Insert a record."""
    connection.execute(sa.insert(table), msgspec.structs.asdict(record))


def changed(connection: sa.Connection, statement: sa.Update | sa.Delete) -> int:
    """Run a change and return how many rows it met."""
    return connection.execute(statement).rowcount
