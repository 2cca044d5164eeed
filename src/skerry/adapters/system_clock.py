"""SystemClock: the machine's own time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from skerry.ports.clock import Clock


class SystemClock(Clock):
    """The wall clock, CLOCK_MONOTONIC, and sleep on the running event loop."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
