"""Windows of metrics: one row for each, replaced by what is told of it later."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from skerry.adapters.sql import rows
from skerry.adapters.sql.schema import metric_windows as table
from skerry.ports.metric_windows import HostWindow
from skerry.spec.metrics import MetricWindow

SITES_PER_QUERY = 500

_insert = insert(table)
_put = _insert.on_conflict_do_update(
    index_elements=list(table.primary_key.columns),
    set_={name: _insert.excluded[name] for name in ("end", "site", "sequence", "received_at", "value")},
    where=table.c.sequence < _insert.excluded.sequence,
)


def put_windows(
    connection: sa.Connection,
    windows: Sequence[MetricWindow],
    *,
    host: str,
    site: str,
    sequence: int,
    at: datetime,
) -> None:
    """Store a host's windows; what is there under the same or a higher sequence stays."""
    values = [
        {
            "application": window.application,
            "release": window.release,
            "host": host,
            "component": window.component,
            "metric": window.metric,
            "begin": window.begin,
            "end": window.end,
            "site": site,
            "sequence": sequence,
            "received_at": at,
            "value": window.value,
        }
        for window in windows
    ]
    if values:
        connection.execute(_put, values)


def load_windows(
    connection: sa.Connection,
    application: str,
    releases: Sequence[str],
    since: datetime | None,
    sites: Sequence[str] | None,
) -> Sequence[HostWindow]:
    """Return windows by site, host and time."""
    query = sa.select(table).where(table.c.application == application, table.c.release.in_(releases))
    if since is not None:
        query = query.where(table.c.end > since)
    found: list[sa.Row[tuple[object, ...]]] = []
    if sites is None:
        found.extend(connection.execute(query))
    else:
        for first in range(0, len(sites), SITES_PER_QUERY):
            some = sites[first : first + SITES_PER_QUERY]
            found.extend(connection.execute(query.where(table.c.site.in_(some))))
    windows = [_window(row) for row in found]
    return sorted(windows, key=lambda one: (one.site, one.host, one.window.begin))


class Trimming(msgspec.Struct, frozen=True):
    """Windows to forget: those received until an instant, of all releases or of all but some."""

    until: datetime
    but: tuple[str, ...] = ()


def plan_trimming(
    connection: sa.Connection, before: datetime, keep: int, *, needed: Collection[str], most: int
) -> Trimming | None:
    """Return what to forget next, about `most` windows; None when nothing is old or too much."""
    received_at = table.c.received_at
    if (until := _nth_oldest(connection, received_at < before, most)) is not None:
        return Trimming(until)
    too_many = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() - keep
    if too_many <= 0:
        return None
    many = min(too_many, most)
    others = table.c.release.not_in(needed)
    if needed and (until := _nth_oldest(connection, others, many)) is not None:
        return Trimming(until, tuple(needed))
    until = _nth_oldest(connection, sa.true(), many)
    return None if until is None else Trimming(until)


def trim(connection: sa.Connection, trimming: Trimming) -> int:
    """Forget windows; those that came together go together. Return how many went."""
    some = table.c.received_at <= trimming.until
    if trimming.but:
        some &= table.c.release.not_in(trimming.but)
    return rows.changed(connection, sa.delete(table).where(some))


def _nth_oldest(connection: sa.Connection, of: sa.ColumnElement[bool], number: int) -> datetime | None:
    """Return when the n-th oldest window of a kind was received, or the newest of fewer; None without any."""
    oldest = sa.select(table.c.received_at).where(of).order_by(table.c.received_at)
    found: datetime | None = connection.execute(oldest.offset(number - 1).limit(1)).scalar_one_or_none()
    if found is None:
        found = connection.execute(sa.select(sa.func.max(table.c.received_at)).where(of)).scalar_one()
    return found


def _window(row: sa.Row[tuple[object, ...]]) -> HostWindow:
    columns = row._mapping
    window = MetricWindow(**{name: columns[name] for name in MetricWindow.__struct_fields__})
    return HostWindow(str(columns["host"]), str(columns["site"]), window)
