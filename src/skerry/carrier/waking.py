"""Sleeping until it is time, or until somebody calls earlier."""

from __future__ import annotations

import asyncio

from skerry.ports.clock import Clock


async def sleep_unless_woken(clock: Clock, seconds: float, wake: asyncio.Event) -> None:
    """Return after so many seconds, or as soon as `wake` is set."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    waking = asyncio.ensure_future(wake.wait())
    try:
        await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        waking.cancel()
