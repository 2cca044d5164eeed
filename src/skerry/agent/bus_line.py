"""The agent's own connection to the bus of its host: held while somebody needs it, opened anew when it was cut.

Rules: what came on a connection is acknowledged on that one alone, since brokers number messages anew. What is retained
is not taken: it was told when it was published.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock

import msgspec

from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.broker import BusClient, BusMessage, BusPlace

MAX_ARRIVED = 5000


class Arrived(msgspec.Struct, frozen=True):
    """A message, when it came, in seconds of the epoch, and on the how manieth connection."""

    message: BusMessage
    at: float
    connection: int


class BusLine:
    """One connection. `place` says where the bus is, None while it is not there; `now` is the time in seconds.

    `patterns` are those that are to be read.
    """

    def __init__(
        self,
        client: Callable[[], BusClient],
        place: Callable[[], BusPlace | None],
        now: Callable[[], float],
        patterns: Callable[[], Sequence[str]],
    ) -> None:
        self._make = client
        self._place = place
        self._now = now
        self._wanted = patterns
        self._client: BusClient | None = None
        self._opened: BusPlace | None = None
        self._patterns: tuple[str, ...] = ()
        self._arrived: deque[Arrived] = deque()
        self._guard = Lock()
        self._turn = asyncio.Lock()
        self.connection = 0
        self.overflown = 0

    async def hold(self) -> bool:
        """Be connected and read what is to be read; tell whether that is so, which it is not while there is no bus.

        Raises:
            Denied, Unavailable: the broker does not let it in now.
        """
        place = self._place()
        async with self._turn:
            if place is None:
                await self._end()
                return False
            if self._client is None or not self._client.is_open or place != self._opened:
                await self._end()
                await asyncio.to_thread(self._open, place)
            wanted = tuple(dict.fromkeys(self._wanted()))
            if wanted != self._patterns:
                await asyncio.to_thread(self._read, wanted)
            return True

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish, and return when the broker has it.

        Raises:
            Unavailable: there is no bus now.
        """
        client = self._client
        if client is None or not client.is_open:
            raise Unavailable("bus.unreachable", "the message bus is not there")
        await asyncio.to_thread(client.publish, topic, payload)

    def arrived(self, most: int) -> Sequence[Arrived]:
        """Return what came and was not taken yet, the oldest first."""
        with self._guard:
            return [self._arrived[index] for index in range(min(most, len(self._arrived)))]

    def taken(self, arrived: Sequence[Arrived]) -> None:
        """Let go of the oldest that came: they are kept elsewhere now, which the broker is told."""
        with self._guard:
            for _ in arrived:
                self._arrived.popleft()
        client = self._client
        for one in arrived:
            if client is not None and one.connection == self.connection:
                client.taken(one.message)

    async def close(self) -> None:
        """End the connection; the broker keeps what comes meanwhile."""
        async with self._turn:
            await self._end()

    async def _end(self) -> None:
        client, self._client, self._opened = self._client, None, None
        self._patterns = ()
        if client is not None:
            await asyncio.to_thread(client.close)

    def _open(self, place: BusPlace) -> None:
        client = self._make()
        self.connection += 1
        number = self.connection
        try:
            client.open(place, take=lambda message: self._take(message, number), durable=True)
        except SkerryError:
            client.close()
            raise
        self._client, self._opened, self._patterns = client, place, ()

    def _read(self, wanted: Sequence[str]) -> None:
        client = self._client
        if client is None:
            raise Unavailable("bus.unreachable", "the message bus is not there")
        if gone := [one for one in self._patterns if one not in wanted]:
            client.unsubscribe(gone)
        client.subscribe([one for one in wanted if one not in self._patterns])
        self._patterns = tuple(wanted)

    def _take(self, message: BusMessage, connection: int) -> None:
        """Keep what comes, in a thread of the client. A broker stops by itself at what is not acknowledged.

        What it does not want acknowledged is dropped where there is no room: its publisher chose that.
        """
        if message.retained:
            return
        with self._guard:
            if len(self._arrived) >= MAX_ARRIVED and not message.number:
                self.overflown += 1
                return
            self._arrived.append(Arrived(message, self._now(), connection))
