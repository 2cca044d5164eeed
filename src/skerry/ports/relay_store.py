"""RelayStore: what a relay remembers: what hosts handed over, and the signed states it holds for those below.

A call is one transaction: all of it is durable when the call returns, or none of it has happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from skerry.ports.kept_documents import KeptDocuments

SignedKind = Literal["desired", "relay-state"]


class KeptReport(msgspec.Struct, frozen=True):
    """A Report envelope of the host that signs with `key`. A `heartbeat` tells nothing but that the host is there.

    `taken_at` is when a relay first took it, in seconds since 1970 by the clock of this one.
    """

    key: str
    sequence: int
    heartbeat: bool
    envelope: bytes
    taken_at: float


class KeptMetrics(msgspec.Struct, frozen=True):
    """A MetricBatch envelope, and the Report envelope that it was made for and must go with."""

    key: str
    sequence: int
    envelope: bytes
    report: bytes
    taken_at: float


class Taking(msgspec.Struct, frozen=True):
    """What one host handed over at one time."""

    key: str
    reports: tuple[KeptReport, ...] = ()
    metrics: KeptMetrics | None = None


class Taken(msgspec.Struct, frozen=True):
    """Which parts of a Taking are on disk now."""

    reports: bool
    metrics: bool


class QueueSize(msgspec.Struct, frozen=True):
    """How much waits, and what was given up for want of room since the store was made."""

    reports: int = 0
    metrics: int = 0
    used_bytes: int = 0
    dropped_reports: int = 0
    dropped_metrics: int = 0
    oldest_at: float | None = None


class Done(msgspec.Struct, frozen=True):
    """What need not be kept any more of one host: reports up to `reports`, metrics up to `metrics`."""

    key: str
    reports: int = 0
    metrics: int = 0


class RelayStore(KeptDocuments, Protocol):
    """Usable from any thread; calls take turns."""

    def take(self, takings: Sequence[Taking], *, limit_bytes: int) -> Sequence[Taken]:
        """Keep what hosts handed over, within so many bytes in all; say of each what is kept.

        A report that is here already stays as it is. Any new report of a host takes the place of a heartbeat of it
        that waits. Where there is no room, the oldest metrics make it, then the oldest heartbeats; never a report
        that tells something: then the newcomer is not taken. Metrics never displace a report.

        Raises:
            Unavailable: the disk is full (`disk.full`); nothing was taken.
        """
        ...

    def waiting_reports(self, limit: int, limit_bytes: int) -> Sequence[KeptReport]:
        """Return what to hand up next: those that tell something before heartbeats, the oldest first.

        Those of one host are in rising order. At least one is returned, however large, if there is one.
        """
        ...

    def reports_after(self, key: str, sequence: int, limit_bytes: int) -> Sequence[KeptReport]:
        """Return what waits behind a report, in the order of hosts' keys and of their reports; ('', 0) for the first.

        At least one is returned, however large, if there is one.
        """
        ...

    def waiting_metrics(self, limit: int, limit_bytes: int) -> Sequence[KeptMetrics]:
        """Return the metrics to hand up next, the oldest first, one per host; at least one if there is one."""
        ...

    def forget(self, done: Sequence[Done], *, given_up: bool = False) -> None:
        """Remove what has arrived above; what is `given_up` instead is counted as dropped."""
        ...

    def held(self) -> dict[str, int]:
        """Return by host key the highest sequence that was ever taken and not let go by `let_go`."""
        ...

    def let_go(self, key: str) -> None:
        """Forget the reports of a host, and that any was ever taken: it is to hand over again what it has.

        Its metrics stay: those it has forgotten.
        """
        ...

    def size(self) -> QueueSize:
        """Return how much waits."""
        ...

    def put_signed(
        self, kind: SignedKind, name: str, generation: int, envelope: bytes, *, again: bool = False
    ) -> bool:
        """Keep a signed state if its generation is above the one held, or the same `again`; tell whether it was."""
        ...

    def signed(self, kind: SignedKind, name: str) -> bytes | None:
        """Return the envelope of a signed state."""
        ...

    def generations(self, kind: SignedKind) -> dict[str, int]:
        """Return by name which generations are held."""
        ...

    def remove_signed(self, kind: SignedKind, names: Sequence[str]) -> None:
        """Forget states; unknown ones are fine."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
