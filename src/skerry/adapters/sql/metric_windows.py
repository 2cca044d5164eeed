"""Windows of metrics: one row for each, replaced by what is told of it later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

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


def trim(connection: sa.Connection, before: datetime, keep: int) -> int:
    """Forget what was received before an instant, and what was received longest ago beyond a number."""
    gone = rows.changed(connection, sa.delete(table).where(table.c.received_at < before))
    oldest_kept = (
        sa.select(table.c.received_at)
        .order_by(table.c.received_at.desc())
        .offset(keep)
        .limit(1)
        .scalar_subquery()
    )
    return gone + rows.changed(connection, sa.delete(table).where(table.c.received_at <= oldest_kept))


def _window(row: sa.Row[tuple[object, ...]]) -> HostWindow:
    columns = row._mapping
    window = MetricWindow(**{name: columns[name] for name in MetricWindow.__struct_fields__})
    return HostWindow(str(columns["host"]), str(columns["site"]), window)
