"""LogRing: the last lines that applications and the agent wrote, on the host's disk, within a size and an age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from skerry.ports.kept_documents import KeptDocuments
from skerry.spec.logs import LogRecord


class LogRing(KeptDocuments, Protocol):
    """Durable after each call; a power cut leaves the state before or after it. Usable from any thread.

    The oldest lines go first: of a source when it has more than its share, of all when all have too much, and those
    that are too old.
    """

    def add(self, source: str, records: Sequence[LogRecord], *, mark: str) -> None:
        """Keep lines of a source, in order, and up to where its output has been read with them.

        Raises:
            Unavailable: no room (`disk.full`).
        """
        ...

    def marks(self) -> dict[str, str]:
        """Return up to where the output of each source has been read."""
        ...

    def forget_marks(self, sources: Sequence[str]) -> None:
        """Forget up to where sources have been read that are there no more; their lines stay."""
        ...

    def newest_first(
        self, application: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[Sequence[LogRecord]]:
        """Yield chunks of an application's lines, the newest first, each in order; some may lie outside the times."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def oldest(self, application: str) -> datetime | None:
        """Return how far back there are lines of an application."""
        ...
