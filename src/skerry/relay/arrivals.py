"""A blob on its way to this relay: one fetch for all who ask, streamed onward as it comes, verified at its end.

Rules: the last byte of a blob is shown to nobody before the whole was verified, so a wrong blob is cut and never ends.
What came stays on disk: a fetch goes on at the byte where it stopped. One that nobody waits for makes way: it reads no
more, and keeps its connection for a while, as what is on its way there would cross the link again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import msgspec
import structlog

from skerry.carrier.limiting import LONGEST_PAUSE_S, Grant, Held, Limiter
from skerry.kit.digests import short
from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.blobs import LocalBlobs
from skerry.ports.link import Link

_log = structlog.get_logger()

PATIENCE_S = 60.0
LOOK_EVERY_S = 0.05
"""How long a fetch that makes way keeps its connection, and how often it looks whether it may go on."""


class Source(msgspec.Struct, frozen=True):
    """Where blobs come from: the upstream, the token that opens it ('' for none yet), and the budget of the link.

    `pause` waits in a fetch's thread, for so long or until its event is set.
    """

    link: Link
    token: Callable[[], str]
    limiter: Limiter
    pause: Callable[[threading.Event, float], object] = threading.Event.wait


class Arrival:
    """How far a blob is. Read in the event loop; `note` is called from the fetch's thread.

    `have` is how many bytes from its begin are on disk; `whole` says that they were verified. `flows` is set once the
    upstream has begun to answer. `urgent` ones have readers; the others are fetched ahead. `elsewhere` says that the
    whole blob has come by another way meanwhile.
    """

    def __init__(
        self, digest: str, size: int, *, urgent: bool, on_came: Callable[[int], None] = lambda _: None
    ) -> None:
        """`on_came` is told in the loop how many bytes have just come."""
        self._on_came = on_came
        self.digest = digest
        self.size = size
        self.urgent = urgent
        self.have = 0
        self.came = 0
        self.flows = False
        self.whole = False
        self.elsewhere = False
        self.failed: SkerryError | None = None
        self.readers = 0
        self.stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.whole or self.failed is not None

    @property
    def shown(self) -> int:
        """How many bytes from the begin anybody may see."""
        return self.size if self.whole else max(0, min(self.have, self.size - 1))

    def note(self, have: int, came: int = 0) -> None:
        """Say from a thread how many bytes are there now, and how many of them have just come."""
        self._loop.call_soon_threadsafe(self._advance, have, came)

    def end(self, failed: SkerryError | None = None) -> None:
        """Say in the loop how it ended."""
        self.whole, self.failed = failed is None, failed
        self._wake()

    async def change(self) -> None:
        """Wait until something has changed."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    async def begun(self) -> None:
        """Wait until bytes come, or it has ended.

        Raises:
            SkerryError: why it failed.
        """
        while not (self.flows or self.ended):
            await self.change()
        if self.failed is not None:
            raise self.failed

    def _advance(self, have: int, came: int) -> None:
        self.have, self.flows = have, True
        self.came += came
        if came:
            self._on_came(came)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)


def fetch_arrival(arrival: Arrival, blobs: LocalBlobs, source: Source, gives_way: Callable[[], bool]) -> None:
    """Bring a blob whole, from where its partial file ends. Blocking, for a worker thread.

    Raises:
        Unavailable: it was cut off, may not flow now (`relay.link_held`), makes way (`relay.gave_way`), or the disk
            is full.
        Missing: the upstream has none of that digest.
        Untrusted: what came is not the blob; all of it is removed.
    """
    size = arrival.size
    if size == 0:
        blobs.put(arrival.digest, b"")
        return
    offset = blobs.partial_size(arrival.digest)
    if offset:
        arrival.note(offset)
    while offset < size:
        offset = _fetch_part(arrival, offset, blobs, source, gives_way)
    blobs.finish(arrival.digest)


def _fetch_part(
    arrival: Arrival, offset: int, blobs: LocalBlobs, source: Source, gives_way: Callable[[], bool]
) -> int:
    """Fetch as much as may flow now and return the new offset."""
    size = arrival.size
    token = source.token()
    if not token:
        raise Unavailable("relay.no_token", "there is no leave from above to fetch blobs yet")
    if gives_way():
        raise Unavailable("relay.gave_way", "waiting for downloads that somebody waits for")
    granted = source.limiter.ask(size - offset)
    if isinstance(granted, Held):
        raise held_back(granted)
    wanted = offset + granted.size
    pacing = _Pacing(arrival, source, gives_way, offset, granted)
    try:
        opened = source.link.blob(
            arrival.digest,
            offset=offset,
            token=token,
            limit=None if wanted == size else granted.size,
            rate=granted.rate,
        )
        with opened as chunks:
            arrival.note(offset)
            offset = blobs.append(arrival.digest, pacing.paced(chunks), offset=offset, limit=size)
    finally:
        source.limiter.give_back(pacing.left)
    arrival.note(offset)
    if offset < wanted and not pacing.paused:
        raise Unavailable("link.cut", f"blob {short(arrival.digest)} was cut off at {offset} of {size} bytes")
    return offset


class _Pacing:
    """Hands chunks on no faster than the budget allows, and says how far they are once they are written.

    `left` is what it holds of its grant; `paused` says that it ended early, and why is known.
    """

    def __init__(
        self,
        arrival: Arrival,
        source: Source,
        gives_way: Callable[[], bool],
        offset: int,
        granted: Grant,
    ) -> None:
        self._arrival = arrival
        self._source = source
        self._gives_way = gives_way
        self._have = offset
        self._rate = granted.rate
        self.left = granted.size
        self.paused = False

    def paced(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield chunks; end early rather than hold a connection for long."""
        stop = self._arrival.stop
        for chunk in chunks:
            self.left = max(0, self.left - len(chunk))
            wait_s = self._source.limiter.take(len(chunk))
            yield chunk
            # It is on disk now: whoever took it has come back for more.
            self._have += len(chunk)
            self._arrival.note(self._have, len(chunk))
            self.paused = wait_s > LONGEST_PAUSE_S or stop.is_set() or not self._may_go_on()
            if self.paused or (wait_s and self._source.pause(stop, wait_s)):
                return

    def _may_go_on(self) -> bool:
        """Let those pass that somebody waits for; False when that takes too long, or the budget has changed."""
        if not (self.left and self._gives_way()):
            return True
        source, stop, needed = self._source, self._arrival.stop, self.left
        source.limiter.give_back(needed)
        self.left = 0
        for _ in range(round(PATIENCE_S / LOOK_EVERY_S)):
            if self._arrival.elsewhere or source.pause(stop, LOOK_EVERY_S):
                return False
            if not self._gives_way():
                granted = source.limiter.ask(needed)
                if isinstance(granted, Held):
                    return False
                self.left = granted.size
                return granted == Grant(needed, self._rate)
        return False


def held_back(held: Held) -> Unavailable:
    """Return the error that says that the link's budget lets nothing flow now."""
    return Unavailable("relay.link_held", held.why, retry_after_s=round(held.wait_s, 1))
