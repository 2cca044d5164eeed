"""MetricsSource: asks an application for its metrics."""

from __future__ import annotations

from typing import Protocol


class MetricsSource(Protocol):
    """Ends within `timeout_s`, and reads no more than `max_bytes`."""

    async def fetch(self, host: str, port: int, path: str, *, timeout_s: float, max_bytes: int) -> bytes:
        """Return the body of a GET that was answered with status 200.

        Raises:
            Unavailable: nobody answers in time, or not so (`metrics.unreachable`).
            Rejected: there is more than `max_bytes` (`metrics.too_large`).
        """
        ...
