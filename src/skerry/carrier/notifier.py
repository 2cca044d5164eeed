"""Wakes long-polls when what they wait for changes. Lives in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from skerry.ports.carrier_backend import Gone


class Notifier:
    """Waiting by key, waking by key."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[bool]]] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Tell whether nobody waits any more."""
        return self._closed

    async def wait(
        self, key: str, seconds: float, *, also: str | Iterable[str] = (), gone: Gone | None = None
    ) -> bool:
        """Return True when `key` or one of `also` was notified, False when the time ran out or nobody waits now."""
        if self._closed:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        more = (also,) if isinstance(also, str) else also
        keys = {key, *(each for each in more if each)}
        for each in keys:
            self._waiting.setdefault(each, set()).add(future)
        leaving = None if gone is None else asyncio.ensure_future(gone())
        if leaving is not None:
            leaving.add_done_callback(lambda done: _leave(done, future))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return False
        finally:
            if leaving is not None:
                leaving.cancel()
            for each in keys:
                waiting = self._waiting.get(each)
                if waiting is not None:
                    waiting.discard(future)
                    if not waiting:
                        del self._waiting[each]

    def waits_for(self, key: str) -> bool:
        """Tell whether somebody waits for `key` now."""
        return key in self._waiting

    def notify(self, key: str) -> None:
        """Wake everybody who waits for `key` now."""
        for future in self._waiting.pop(key, ()):
            with contextlib.suppress(asyncio.InvalidStateError):
                future.set_result(True)

    def close(self) -> None:
        """Wake everybody, and let nobody wait again: the process is going."""
        self._closed = True
        for key in list(self._waiting):
            self.notify(key)


def _leave(leaving: asyncio.Future[None], waiting: asyncio.Future[bool]) -> None:
    """End a wait because whoever waited has gone."""
    if not leaving.cancelled():
        leaving.exception()  # whatever it was: there is nobody to tell
        if not waiting.done():
            waiting.set_result(False)
