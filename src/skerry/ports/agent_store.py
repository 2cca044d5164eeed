"""AgentStore: what a host remembers: a few documents by key, reports the hub has not acknowledged, and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class QueuedReport(msgspec.Struct, frozen=True):
    """A signed Report envelope on its way. One that was `sent` is never changed again."""

    sequence: int
    envelope: bytes
    sent: bool = False


class KeptEvent(msgspec.Struct, frozen=True):
    """An event of this host as it is chained: its number, and its canonical JSON."""

    number: int
    content: bytes


MAX_KEPT_EVENTS = 2000
"""So many events are kept, the newest, also those that the hub has."""


class WindowRow(msgspec.Struct, frozen=True):
    """A window of metrics. All but `end`, `state` and `value` name it; instants are whole seconds of the epoch."""

    application: str
    release: str
    component: str
    metric: str
    begin: int
    end: int
    state: str
    value: bytes = b""


class AgentStore(Protocol):
    """Durable after each call; a power cut leaves the state before or after it."""

    def load(self, key: str) -> bytes | None:
        """Return a document."""
        ...

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        """Store documents together, all or none; None removes.

        Raises:
            Unavailable: no room (`disk.full`).
        """
        ...

    def put_report(self, report: QueuedReport, *, events: Sequence[KeptEvent] = ()) -> None:
        """Queue a report, or replace one of the same sequence that was not sent; and keep events, together.

        Raises:
            Conflict: a report of that sequence was sent already.
            Unavailable: no room.
        """
        ...

    def kept_events(self, limit: int = MAX_KEPT_EVENTS) -> Sequence[KeptEvent]:
        """Return the newest events that are kept, oldest first."""
        ...

    def reports(self, limit: int, *, above: int = -1) -> Sequence[QueuedReport]:
        """Return the oldest reports above a sequence, in order."""
        ...

    def mark_sent(self, up_to: int) -> None:
        """Freeze all reports up to a sequence."""
        ...

    def acknowledge(self, up_to: int) -> None:
        """Forget all reports up to a sequence."""
        ...

    def drop_oldest(self, keep: int) -> int:
        """Forget all but the newest `keep` reports and return how many were dropped."""
        ...

    def change_windows(self, put: Sequence[WindowRow], remove: Sequence[WindowRow] = ()) -> None:
        """Forget some windows and store others, each in the place of what has its name, all or none.

        Raises:
            Unavailable: no room.
        """
        ...

    def window_names(self) -> Sequence[WindowRow]:
        """Return all windows, oldest first, without their values."""
        ...

    def windows(
        self,
        *,
        application: str = "",
        releases: Sequence[str] = (),
        states: Sequence[str] = (),
        limit: int = 10_000,
    ) -> Sequence[WindowRow]:
        """Return the oldest windows, oldest first; what is empty selects all."""
        ...

    def mark_windows(self, windows: Sequence[WindowRow], state: str) -> None:
        """Set the state of those windows whose value is still the given one."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
