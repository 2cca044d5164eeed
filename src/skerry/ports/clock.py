"""Time, so that tests can hold it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """A wall clock in UTC, a monotonic clock in seconds, and waiting on the latter."""

    def now(self) -> datetime:
        """Return the wall time; it may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...
