"""Blobs that the cache is too small for pass through: from above to who asks for them, and nothing of them stays.

Rules: the budget of the link holds for them as for others. Of one that is read from its begin to its end the last byte
is handed on only after the whole was verified. Of one that is gone on with in the middle the relay sees only the rest:
that goes through as it comes, and the host verifies it, as it does all.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor

from skerry.carrier.limiting import LONGEST_PAUSE_S, Held
from skerry.kit.digests import hex_of, short
from skerry.kit.errors import Unavailable, Untrusted
from skerry.relay.arrivals import Source, held_back

MAX_PASSING = 8
Chunks = Generator[bytes]


class Passing:
    """Carries blobs through. Lives in one event loop; `on_came` is told how many bytes have come."""

    def __init__(self, source: Source, *, on_came: Callable[[int], None]) -> None:
        self._source = source
        self._on_came = on_came
        self._turns = asyncio.Semaphore(MAX_PASSING)
        self._threads = ThreadPoolExecutor(MAX_PASSING, "pass")

    def check(self) -> None:
        """Find out whether one more may pass.

        Raises:
            Unavailable: as many as may pass at a time (`relay.busy`).
        """
        if self._turns.locked():
            raise Unavailable("relay.busy", "too many large blobs at a time", retry_after_s=5)

    async def read(self, digest: str, size: int, *, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Yield bytes as they come.

        Raises:
            Unavailable: they do not come, or may not now (`relay.link_held`).
            Missing: the upstream has none of that digest.
            Untrusted: what came is another blob (`blob.mismatch`); its last byte was not yielded.
        """
        loop, halt = asyncio.get_running_loop(), threading.Event()
        async with self._turns:
            chunks = self._flow(digest, start, stop, halt)
            if start == 0 and stop == size:
                chunks = _verified(digest, size, chunks)
            coming: asyncio.Future[bytes | None] | None = None
            try:
                while True:
                    coming = loop.run_in_executor(self._threads, next, chunks, None)
                    chunk = await asyncio.shield(coming)
                    if chunk is None:
                        return
                    self._on_came(len(chunk))
                    yield chunk
            finally:
                # What runs in a thread ends first: it cannot be closed meanwhile.
                halt.set()
                if coming is not None and not coming.done():
                    coming.add_done_callback(lambda done: self._end(done, chunks))
                else:
                    await loop.run_in_executor(self._threads, chunks.close)

    def close(self) -> None:
        """Let go of the threads; what is under way ends when the link is closed."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _end(self, done: asyncio.Future[bytes | None], chunks: Chunks) -> None:
        if not done.cancelled():
            done.exception()  # nobody waits for it any more
        self._threads.submit(chunks.close)

    def _flow(self, digest: str, start: int, stop: int, halt: threading.Event) -> Chunks:
        """Yield bytes no faster than the budget allows. For worker threads, one at a time."""
        source, offset = self._source, start
        while offset < stop:
            token = source.token()
            if not token:
                raise Unavailable("relay.no_token", "there is no leave from above to fetch blobs yet")
            granted = source.limiter.ask(stop - offset)
            if isinstance(granted, Held):
                raise held_back(granted)
            left, wait_s = granted.size, 0.0
            try:
                with source.link.blob(
                    digest, offset=offset, token=token, limit=granted.size, rate=granted.rate
                ) as chunks:
                    for chunk in chunks:
                        left -= len(chunk)
                        wait_s = source.limiter.take(len(chunk))
                        yield chunk
                        if wait_s > LONGEST_PAUSE_S or (wait_s and source.pause(halt, wait_s)):
                            break
            finally:
                source.limiter.give_back(max(0, left))
            offset += granted.size - left
            if halt.is_set():
                return
            if left and wait_s <= LONGEST_PAUSE_S:
                raise Unavailable("link.cut", f"blob {short(digest)} was cut off at {offset} of {stop} bytes")


def _verified(digest: str, size: int, chunks: Chunks) -> Chunks:
    """Yield a whole blob, its last byte only if all of it is that blob."""
    state, left = hashlib.sha256(), size
    for chunk in chunks:
        state.update(chunk)
        left -= len(chunk)
        if left > 0:
            yield chunk
            continue
        if state.hexdigest() != hex_of(digest):
            raise Untrusted("blob.mismatch", f"what came from above is not blob {short(digest)}")
        yield chunk
