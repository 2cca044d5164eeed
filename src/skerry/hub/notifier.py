"""Wakes long-polls when their site's desired state changes. Lives in one event loop."""

from __future__ import annotations

import asyncio
import contextlib


class Notifier:
    """Waiting by key, waking by key."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._closed = False

    async def wait(self, key: str, seconds: float, *, also: str = "") -> bool:
        """Return True when `key` or `also` was notified, False when the time ran out or nobody waits any more."""
        if self._closed:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keys = (key, also) if also else (key,)
        for each in keys:
            self._waiting.setdefault(each, set()).add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            for each in keys:
                waiting = self._waiting.get(each)
                if waiting is not None:
                    waiting.discard(future)
                    if not waiting:
                        del self._waiting[each]
        return True

    def notify(self, key: str) -> None:
        """Wake everybody who waits for `key` now."""
        for future in self._waiting.pop(key, ()):
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(None)

    def close(self) -> None:
        """Wake everybody, and let nobody wait again: the hub is going."""
        self._closed = True
        for key in list(self._waiting):
            self.notify(key)
