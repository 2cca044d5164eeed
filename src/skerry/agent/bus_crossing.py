"""What goes over a link between the buses of two hosts: queued, acknowledged, sent again, and taken once.

Rules:
- Only what an application of this host published is sent on, never what came over a link: so nothing goes in a circle,
  and with more than two hosts nothing comes twice.
- What waits for a host that cannot be reached is bounded, and the oldest goes first.
- A message is acknowledged when the other host's broker has it. What was not is sent again on the next link; numbers
  tell what has come already, while the agent that sent it runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Unavailable, Untrusted
from skerry.matching.topics import match_any_topic
from skerry.ports.broker import BusClient, BusMessage, BusPlace
from skerry.ports.bus_link import LinkEnd
from skerry.ports.clock import Clock

T = TypeVar("T")

MAX_WAITING = 2000
MAX_WAITING_BYTES = 4 << 20
WINDOW = 64
ALIVE_S = 5.0
SILENT_S = 20.0
ECHO_S = 60.0
MAX_ECHOES = 4096


class LinkMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message on a link. Numbers rise within a session; 0 says only that the sender is there."""

    session: str
    number: int
    topic: str = ""
    payload: bytes = b""


class LinkTaken(msgspec.Struct, frozen=True, array_like=True):
    """What the taking end answers to each message: it has that one, and all before it."""

    number: int


class Outgoing:
    """What waits for one host. Belongs to the event loop it is used in."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._waiting: deque[LinkMessage] = deque()
        self._bytes = 0
        self._number = 0
        self._sent = 0
        self._more = asyncio.Event()
        self._end: LinkEnd | None = None
        self.dropped = 0

    def put(self, topic: str, payload: bytes) -> None:
        """Have a message sent; the oldest that waits goes where there is no room."""
        self._number += 1
        self._waiting.append(LinkMessage(self._session, self._number, topic, payload))
        self._bytes += len(payload)
        while len(self._waiting) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
            self._forget_first()
            self.dropped += 1
        self._more.set()

    async def serve(self, end: LinkEnd) -> None:
        """Send what waits and what comes, until the link ends; a link before it is ended.

        Raises:
            SkerryError: how it ended.
        """
        if self._end is not None:
            self._end.close()
        self._end, self._sent = end, 0
        ways = [asyncio.ensure_future(self._send(end)), asyncio.ensure_future(self._hear(end))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _send(self, end: LinkEnd) -> None:
        # The other end counts the link as open from its first word on: from now on what is put waits for it.
        await end.send(msgspec.msgpack.encode(LinkMessage(self._session, 0)))
        while self._end is end:
            if self._sent < min(len(self._waiting), WINDOW):
                message = self._waiting[self._sent]
                self._sent += 1
                await end.send(msgspec.msgpack.encode(message))
                continue
            self._more.clear()
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._more.wait()
            except TimeoutError:
                await end.send(msgspec.msgpack.encode(LinkMessage(self._session, 0)))

    async def _hear(self, end: LinkEnd) -> None:
        while self._end is end:
            taken = _decode(await end.receive(limit_s=SILENT_S), LinkTaken, end.host)
            while self._waiting and self._sent and self._waiting[0].number <= taken.number:
                self._forget_first()
            self._more.set()

    def _forget_first(self) -> None:
        self._bytes -= len(self._waiting.popleft().payload)
        self._sent = max(0, self._sent - 1)


class Incoming:
    """What comes from one host. `patterns` is all that is taken of it."""

    def __init__(self, publish: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._publish = publish
        self._last = ("", 0)
        self.patterns: tuple[str, ...] = ()

    async def take(self, end: LinkEnd, *, heard: Callable[[], None]) -> None:
        """Publish here what comes, until the link ends; `heard` is called at each word of the other end.

        Raises:
            SkerryError: how it ended, or why it cannot be published here.
        """
        while True:
            message = _decode(await end.receive(limit_s=SILENT_S), LinkMessage, end.host)
            heard()
            session, last = self._last
            is_new = message.number > (last if message.session == session else 0)
            if is_new and match_any_topic(self.patterns, message.topic):
                await self._publish(message.topic, message.payload)
            if is_new:
                self._last = (message.session, message.number)
            await end.send(msgspec.msgpack.encode(LinkTaken(message.number)))


class OwnBus:
    """The bridge's own connection to the broker of its host. `take` gets what applications here have published.

    A broker hands a client what it published itself as well. MQTT 3.1.1 cannot ask it not to, so each message that is
    published here is expected to come once, and is passed over then.
    """

    def __init__(
        self, make: Callable[[], BusClient], clock: Clock, take: Callable[[str, bytes], None]
    ) -> None:
        self._make, self._clock, self._take = make, clock, take
        self._client: BusClient | None = None
        self._place: BusPlace | None = None
        self._patterns: tuple[str, ...] = ()
        self._echoes: dict[tuple[str, bytes], deque[float]] = {}
        self._turn = threading.Lock()
        self._under_way = 0
        self.dropped = 0

    async def keep(self, place: BusPlace, patterns: Sequence[str]) -> None:
        """Be connected there, and read these patterns. Cheap when nothing has changed.

        Raises:
            SkerryError: it cannot be.
        """
        wanted = tuple(patterns)
        client = self._client = self._client or self._make()
        if client.is_open and self._place == place and self._patterns == wanted:
            return
        self._echoes.clear()
        self._patterns = ()
        loop = asyncio.get_running_loop()

        def came(message: BusMessage) -> None:
            client.taken(message)
            with self._turn:
                if self._under_way >= MAX_WAITING:
                    self.dropped += 1
                    return
                self._under_way += 1
            try:
                loop.call_soon_threadsafe(self._came, message)
            except RuntimeError:  # the loop has ended
                return

        await asyncio.to_thread(client.open, place, take=came)
        self._place = place
        if wanted:
            await asyncio.to_thread(client.subscribe, wanted)
        self._patterns = wanted

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish here what came from elsewhere; returns when the broker has it.

        Raises:
            Unavailable: it has not.
        """
        if self._client is None:
            raise Unavailable("bus.unreachable", "not connected")
        if match_any_topic(self._patterns, topic):
            while len(self._echoes) >= MAX_ECHOES:
                self._echoes.pop(next(iter(self._echoes)))
            expected = self._echoes.setdefault((topic, payload), deque())
            expected.append(self._clock.monotonic() + ECHO_S)
        await asyncio.to_thread(self._client.publish, topic, payload)

    async def close(self) -> None:
        """Leave the broker."""
        client, self._client, self._place = self._client, None, None
        if client is not None:
            await asyncio.to_thread(client.close)

    def _came(self, message: BusMessage) -> None:
        with self._turn:
            self._under_way -= 1
        # What is retained was published long ago, and has crossed then if anybody read it.
        if not message.retained and not self._is_echo(message.topic, message.payload):
            self._take(message.topic, message.payload)

    def _is_echo(self, topic: str, payload: bytes) -> bool:
        now, key = self._clock.monotonic(), (topic, payload)
        expected = self._echoes.get(key, deque())
        while expected and expected[0] < now:
            expected.popleft()
        is_one = bool(expected)
        if is_one:
            expected.popleft()
        if not expected:
            self._echoes.pop(key, None)
        return is_one


def _decode(frame: bytes, kind: type[T], host: str) -> T:
    try:
        return msgspec.msgpack.decode(frame, type=kind)
    except UNREADABLE as error:
        raise Untrusted("link.strange", f"{host} sends what is no message") from error
