"""Telemetry as rows: how far each host has told, its series, and chunks of their windows.

A chunk is the windows of one series as blocks have them, and zlib; its total is one window.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from skerry.adapters.sql import rows
from skerry.adapters.sql.database import Database
from skerry.adapters.sql.schema_telemetry import telemetry_chunks as chunks
from skerry.adapters.sql.schema_telemetry import telemetry_hosts as hosts
from skerry.adapters.sql.schema_telemetry import telemetry_series as series_table
from skerry.kit.errors import Bug, Conflict
from skerry.ports.telemetry_store import (
    SPANS,
    Chunk,
    ChunkName,
    HostTelemetry,
    SeriesRecord,
    TelemetryStore,
)
from skerry.telemetry.blocks import put_windows, read_windows
from skerry.telemetry.numbers import Reader, Unreadable
from skerry.telemetry.windows import Kind, SeriesKey, Windows, WindowValue

AT_ONCE = 400
MAX_RAW_BYTES = 16 << 20


class SqlTelemetry(TelemetryStore):
    """The part of the hub's store that is about telemetry."""

    _database: Database

    def telemetry_hosts(self, hosts: Collection[str] | None = None) -> Sequence[HostTelemetry]:
        return self._database.read(lambda connection: load_hosts(connection, hosts))

    def telemetry_series(
        self,
        *,
        host: str = "",
        names: Collection[str] = (),
        idle_since: int | None = None,
        limit: int = 200_000,
    ) -> Sequence[SeriesRecord]:
        return self._database.read(lambda connection: load_series(connection, host, names, idle_since, limit))

    def telemetry_names(self) -> Mapping[str, int]:
        query = sa.select(series_table.c.name, sa.func.count()).group_by(series_table.c.name)
        found = self._database.read(lambda connection: connection.execute(query).all())
        return {str(name): int(count) for name, count in found}

    def telemetry_chunks(self, names: Collection[ChunkName]) -> Mapping[ChunkName, Chunk]:
        kinds, found = self._database.read(lambda connection: load_chunks(connection, names))
        return {
            name: _chunk(name, row, kinds, whole=True) for name, row in found.items() if name.series in kinds
        }

    def telemetry_range(self, series: Collection[str], since: int, until: int) -> Mapping[ChunkName, Chunk]:
        kinds, found = self._database.read(lambda connection: load_range(connection, series, since, until))
        return {
            name: _chunk(name, row, kinds, whole=not _is_within(name, since, until))
            for name, row in found.items()
            if name.series in kinds
        }

    def put_telemetry(
        self,
        host: HostTelemetry,
        *,
        series: Sequence[SeriesRecord] = (),
        put: Mapping[ChunkName, Chunk] = {},
        remove: Collection[ChunkName] = (),
    ) -> None:
        # Packed before the one writer has it, whom reports wait for.
        packed = [_packed(name, chunk) for name, chunk in put.items()]
        self._database.write(lambda connection: put_all(connection, host, series, packed, remove))

    def old_chunks(self, resolution_s: int, before: int, limit: int) -> Sequence[tuple[str, ChunkName]]:
        query = (
            sa.select(series_table.c.host, chunks.c.series, chunks.c.resolution_s, chunks.c.begin)
            .join(series_table, series_table.c.id == chunks.c.series)
            .where(chunks.c.resolution_s == resolution_s, chunks.c.begin < before)
            .order_by(chunks.c.begin)
            .limit(limit)
        )
        found = self._database.read(lambda connection: connection.execute(query).all())
        return [(str(row[0]), ChunkName(row[1], row[2], row[3])) for row in found]

    def forget_telemetry(
        self, *, host: str = "", chunks: Collection[ChunkName] = (), series: Collection[str] = ()
    ) -> None:
        self._database.write(lambda connection: forget(connection, host, chunks, series))

    def telemetry_bytes(self) -> int:
        size = sa.func.length(chunks.c.content) + sa.func.length(chunks.c.total)
        query = sa.select(sa.func.coalesce(sa.func.sum(size), 0))
        return int(self._database.read(lambda connection: connection.execute(query).scalar_one()))


def load_hosts(connection: sa.Connection, names: Collection[str] | None) -> list[HostTelemetry]:
    """Return how far hosts have told."""
    query = sa.select(hosts).order_by(hosts.c.host)
    if names is None:
        return list(rows.load_all(connection, query, HostTelemetry))
    found: list[HostTelemetry] = []
    for some in _some(names):
        found += rows.load_all(connection, query.where(hosts.c.host.in_(some)), HostTelemetry)
    return found


def load_series(
    connection: sa.Connection, host: str, names: Collection[str], idle_since: int | None, limit: int
) -> list[SeriesRecord]:
    """Return series by name and host."""
    query = sa.select(series_table).order_by(series_table.c.name, series_table.c.host, series_table.c.id)
    if host:
        query = query.where(series_table.c.host == host)
    if names:
        query = query.where(series_table.c.name.in_(names))
    if idle_since is not None:
        query = query.where(series_table.c.newest < idle_since)
    found = connection.execute(query.limit(limit))
    return [
        SeriesRecord(
            id=row.id,
            host=row.host,
            site=row.site,
            key=SeriesKey(row.name, row.labels, msgspec.convert(row.kind, Kind)),
            newest=row.newest,
        )
        for row in found
    ]


_Row = tuple[bytes, bytes]
_Found = tuple[Mapping[str, Kind], dict[ChunkName, _Row]]


def load_chunks(connection: sa.Connection, names: Collection[ChunkName]) -> _Found:
    """Return the kinds of the series and what the chunks hold."""
    found: dict[ChunkName, _Row] = {}
    wanted = set(names)
    by_stretch: dict[tuple[int, int], list[str]] = {}
    for name in names:
        by_stretch.setdefault((name.resolution_s, name.begin), []).append(name.series)
    for (resolution_s, begin), of in by_stretch.items():
        for some in _some(of):
            query = sa.select(chunks).where(
                chunks.c.series.in_(some), chunks.c.resolution_s == resolution_s, chunks.c.begin == begin
            )
            found |= {name: row for name, row in _named(connection, query) if name in wanted}
    return _kinds(connection, {name.series for name in names}), found


def load_range(connection: sa.Connection, series: Collection[str], since: int, until: int) -> _Found:
    """Return the kinds of the series and what their chunks of a time hold."""
    found: dict[ChunkName, _Row] = {}
    reach = sa.or_(
        *(
            sa.and_(chunks.c.resolution_s == resolution_s, chunks.c.begin > since - span)
            for resolution_s, span in SPANS.items()
        )
    )
    for some in _some(series):
        query = sa.select(chunks).where(chunks.c.series.in_(some), chunks.c.begin < until, reach)
        found |= dict(_named(connection, query))
    return _kinds(connection, series), found


def put_all(
    connection: sa.Connection,
    host: HostTelemetry,
    series: Sequence[SeriesRecord],
    packed: Sequence[Mapping[str, Any]],
    remove: Collection[ChunkName],
) -> None:
    """Store what changed of a host's telemetry if nobody else changed it since it was read."""
    values = {**msgspec.structs.asdict(host), "version": host.version + 1}
    if host.version:
        same = (hosts.c.host == host.host) & (hosts.c.version == host.version)
        moved = not rows.changed(connection, sa.update(hosts).where(same).values(values))
    else:
        moved = rows.exists(connection, sa.select(hosts.c.host).where(hosts.c.host == host.host))
        if not moved:
            connection.execute(sa.insert(hosts), values)
    if moved:
        raise Conflict("telemetry.moved", f"the telemetry of {host.host} changed meanwhile")
    _replace(connection, series_table, [_series_row(one) for one in series], ("id",))
    _replace(connection, chunks, packed, ("series", "resolution_s", "begin"))
    if remove:
        connection.execute(_remove_chunk, _chunk_keys(remove))


def forget(
    connection: sa.Connection, host: str, gone: Collection[ChunkName], series: Collection[str]
) -> None:
    """Forget a host, chunks and series."""
    if host:
        own = sa.select(series_table.c.id).where(series_table.c.host == host)
        connection.execute(sa.delete(chunks).where(chunks.c.series.in_(own)))
        connection.execute(sa.delete(series_table).where(series_table.c.host == host))
        connection.execute(sa.delete(hosts).where(hosts.c.host == host))
    if gone:
        connection.execute(_remove_chunk, _chunk_keys(gone))
    for some in _some(series):
        connection.execute(sa.delete(chunks).where(chunks.c.series.in_(some)))
        connection.execute(sa.delete(series_table).where(series_table.c.id.in_(some)))


_remove_chunk = sa.delete(chunks).where(
    chunks.c.series == sa.bindparam("of_series"),
    chunks.c.resolution_s == sa.bindparam("of_resolution"),
    chunks.c.begin == sa.bindparam("of_begin"),
)


def _chunk_keys(names: Collection[ChunkName]) -> list[dict[str, object]]:
    return [
        {"of_series": name.series, "of_resolution": name.resolution_s, "of_begin": name.begin}
        for name in names
    ]


def _replace(
    connection: sa.Connection, table: sa.Table, values: Sequence[Mapping[str, Any]], key: tuple[str, ...]
) -> None:
    """Put rows in the place of those with the same key; in words that every database understands."""
    if not values:
        return
    same = sa.and_(*(table.c[name] == sa.bindparam(f"key_{name}") for name in key))
    connection.execute(
        sa.delete(table).where(same), [{f"key_{name}": row[name] for name in key} for row in values]
    )
    connection.execute(sa.insert(table), list(values))


def _series_row(record: SeriesRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "host": record.host,
        "site": record.site,
        "name": record.key.name,
        "kind": record.key.kind,
        "labels": record.key.labels,
        "newest": record.newest,
    }


def _named(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[tuple[ChunkName, _Row]]:
    for row in connection.execute(query):
        yield ChunkName(row.series, row.resolution_s, row.begin), (row.total, row.content)


def _kinds(connection: sa.Connection, series: Collection[str]) -> Mapping[str, Kind]:
    found: dict[str, Kind] = {}
    for some in _some(series):
        query = sa.select(series_table.c.id, series_table.c.kind).where(series_table.c.id.in_(some))
        found |= {str(id_): msgspec.convert(kind, Kind) for id_, kind in connection.execute(query)}
    return found


def _some(values: Collection[str]) -> Iterator[list[str]]:
    whole = list(dict.fromkeys(values))
    for first in range(0, len(whole), AT_ONCE):
        yield whole[first : first + AT_ONCE]


def _is_within(name: ChunkName, since: int, until: int) -> bool:
    return since <= name.begin and name.begin + SPANS[name.resolution_s] <= until


def _packed(name: ChunkName, chunk: Chunk) -> dict[str, object]:
    return {
        "series": name.series,
        "resolution_s": name.resolution_s,
        "begin": name.begin,
        "total": _pack({name.begin: chunk.total}, name.resolution_s),
        "content": _pack(chunk.windows, name.resolution_s),
    }


def _chunk(name: ChunkName, row: _Row, kinds: Mapping[str, Kind], *, whole: bool) -> Chunk:
    kind, (total, content) = kinds[name.series], row
    merged, _ = _unpack(total, kind, name.resolution_s, whole=True)
    windows, count = _unpack(content, kind, name.resolution_s, whole=whole)
    return Chunk(windows, merged[name.begin], count)


def _pack(windows: Windows, resolution_s: int) -> bytes:
    out = bytearray()
    put_windows(out, windows, resolution_s)
    return zlib.compress(bytes(out), 6)


def _unpack(
    content: bytes, kind: Kind, resolution_s: int, *, whole: bool
) -> tuple[dict[int, WindowValue], int]:
    """Return windows, unless they are not wanted, and how many there are."""
    try:
        raw = zlib.decompressobj().decompress(content, MAX_RAW_BYTES)
        count = Reader(raw).unsigned()
        return (read_windows(Reader(raw), kind, resolution_s) if whole else {}), count
    except (zlib.error, Unreadable) as error:
        raise Bug("telemetry.chunk_damaged", f"a chunk of the database cannot be read: {error}") from error
