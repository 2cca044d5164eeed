"""TelemetryStore: what hosts measured, part of what the hub remembers. Rules as `skerry.ports.hub_store`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.spec.telemetry import Losses
from skerry.telemetry.received import Ranges
from skerry.telemetry.windows import SeriesKey, WindowValue


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of a host's buffer: the numbers of its batches, and what it did not keep.

    `ignored` counts samples that the hub has no place for: of another time, or of too many series; `unreadable` batches
    that are no blocks. `lost_at` is when it last told that the losses had grown.
    """

    name: str
    received: Ranges = ()
    losses: Losses = Losses()
    ignored: int = 0
    unreadable: int = 0
    lost_at: datetime | None = None


class HostTelemetry(msgspec.Struct, frozen=True, kw_only=True):
    """How far a host has told; `newest` is where its newest window ends, in seconds of the epoch."""

    host: str
    site: str
    version: int = 0
    received_at: datetime
    newest: int = 0
    streams: tuple[Stream, ...] = ()


class SeriesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A series of a host. `newest` is where its newest window ends."""

    id: str
    host: str
    site: str
    key: SeriesKey
    newest: int


class ChunkName(msgspec.Struct, frozen=True, order=True):
    """A stretch of a series, in windows of one length. `begin` is a multiple of `SPANS[resolution_s]`."""

    series: str
    resolution_s: int
    begin: int


class Chunk(msgspec.Struct, frozen=True):
    """The windows of a stretch by their begin, all of them as one, and how many they are."""

    windows: Mapping[int, WindowValue]
    total: WindowValue
    count: int


SPANS: Mapping[int, int] = {60: 3600, 600: 86_400, 3600: 864_000}
"""How long the stretches are for each length of window, in seconds."""


class TelemetryStore(Protocol):
    """The methods of `HubStore` about telemetry."""

    def telemetry_hosts(self, hosts: Collection[str] | None = None) -> Sequence[HostTelemetry]:
        """Return how far these hosts have told, or all."""
        ...

    def telemetry_series(
        self,
        *,
        host: str = "",
        names: Collection[str] = (),
        idle_since: int | None = None,
        limit: int = 200_000,
    ) -> Sequence[SeriesRecord]:
        """Return series, by name and host: of a host, of some names, or without anything new since an instant."""
        ...

    def telemetry_names(self) -> Mapping[str, int]:
        """Return the names of all series, and how many have each."""
        ...

    def telemetry_chunks(self, names: Collection[ChunkName]) -> Mapping[ChunkName, Chunk]:
        """Return these chunks; those that are not there are left out."""
        ...

    def telemetry_range(self, series: Collection[str], since: int, until: int) -> Mapping[ChunkName, Chunk]:
        """Return the chunks of series with windows that begin at or after `since` and before `until`.

        Of a chunk that lies within the range as a whole, the windows may be left out: `total` says all.
        """
        ...

    def put_telemetry(
        self,
        host: HostTelemetry,
        *,
        series: Sequence[SeriesRecord] = (),
        put: Mapping[ChunkName, Chunk] = {},
        remove: Collection[ChunkName] = (),
    ) -> None:
        """Store what changed of a host's telemetry, all or none; `host.version` is that which was read.

        Raises:
            Conflict: somebody else changed it meanwhile (`telemetry.moved`).
        """
        ...

    def old_chunks(self, resolution_s: int, before: int, limit: int) -> Sequence[tuple[str, ChunkName]]:
        """Return the oldest chunks of a length of window that begin before an instant, each with its host."""
        ...

    def forget_telemetry(
        self, *, host: str = "", chunks: Collection[ChunkName] = (), series: Collection[str] = ()
    ) -> None:
        """Forget all of a host; or chunks; or series with their chunks."""
        ...

    def telemetry_bytes(self) -> int:
        """Return how many bytes all chunks have."""
        ...
