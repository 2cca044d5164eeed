"""Waiting for what must come true: no test sleeps for luck, and a slow machine costs time, not truth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.1


async def eventually(
    look: Callable[[], Awaitable[T | None]], *, limit_s: float = 60.0, what: str = "the condition"
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


def eventually_sync(look: Callable[[], T | None], *, limit_s: float = 60.0, what: str = "the condition") -> T:
    """Do the same as `eventually`, without an event loop; blocks.

    A look that takes long, such as a command that is run, is taken less often, so that looking leaves what is awaited
    most of the machine.
    """
    began = time.monotonic()
    limit = began + limit_s
    while not (found := look()):
        now = time.monotonic()
        if now > limit:
            raise AssertionError(f"{what} did not come true within {limit_s:g} s; last seen: {found!r}")
        time.sleep(min(max(_PAUSE_S, now - began), _LONGEST_PAUSE_S))
        began = time.monotonic()
    return found
