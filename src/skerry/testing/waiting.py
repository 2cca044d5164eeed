"""Waiting for what must come true: no test sleeps for luck, and a slow machine costs time, not truth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01


async def eventually(
    look: Callable[[], Awaitable[T | None]], *, limit_s: float = 30.0, what: str = "the condition"
) -> T:
    """Look again and again until the answer is truthy, and return it.

    Raises:
        AssertionError: it did not come true within `limit_s`; the last answer is in the message.
    """
    limit = time.monotonic() + limit_s
    while not (found := await look()):
        if time.monotonic() > limit:
            raise AssertionError(f"{what} did not come true within {limit_s:g} s; last seen: {found!r}")
        await asyncio.sleep(_PAUSE_S)
    return found


def eventually_sync(look: Callable[[], T | None], *, limit_s: float = 30.0, what: str = "the condition") -> T:
    """Do the same as `eventually`, without an event loop; blocks."""
    limit = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > limit:
            raise AssertionError(f"{what} did not come true within {limit_s:g} s; last seen: {found!r}")
        time.sleep(_PAUSE_S)
    return found
