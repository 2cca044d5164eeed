"""Asking upstreams for what is no name of the site: in bounded time, with a small cache, and silent for no longer.

Rules:
- A question goes on as it came, with a number and a port of its own. An answer that does not fit is passed over.
- An upstream that failed twice in a row is left aside for a while: with no link the answer is SERVFAIL at once.
- At most so many questions are under way, and so many answers kept.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence

import msgspec

from skerry.adapters.dns_packets import (
    SERVFAIL,
    Query,
    aged,
    read_reply,
    with_number,
    write_refusal,
)
from skerry.kit.errors import Rejected
from skerry.ports.clock import Clock

TIMEOUT_S = 1.5
ASIDE_S = 5.0
FAILURES = 2
MAX_PENDING = 64
MAX_KEPT = 512
MAX_KEPT_S = 300
MAX_UPSTREAMS = 3


class _Kept(msgspec.Struct, frozen=True):
    data: bytes
    at: float
    until: float


class _Reply(asyncio.DatagramProtocol):
    """One question to one upstream; the socket is connected, so that nobody else is heard."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            read_reply(data, self._query)
        except Rejected:
            return  # somebody guesses: the true one may still come
        if not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


class Forwarding:
    """Upstreams, tried in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._failed: dict[str, tuple[int, float]] = {}
        self._pending = 0
        self.upstreams: tuple[str, ...] = ()

    def set_upstreams(self, upstreams: Sequence[str]) -> None:
        """Ask these from now on; what others answered is forgotten."""
        chosen = tuple(upstreams[:MAX_UPSTREAMS])
        if chosen != self.upstreams:
            self.upstreams, self._failed = chosen, {}
            self._kept.clear()

    async def ask(self, query: Query, *, tcp: bool) -> bytes:
        """Return the answer to a query for its client; SERVFAIL where no upstream gives one. `tcp`: it may be long."""
        now = self._clock.monotonic()
        kept = self._kept.get(query.raw[2:])
        if kept is not None and now < kept.until:
            return with_number(aged(kept.data, int(now - kept.at)), query.id)
        if self._pending >= MAX_PENDING:
            return write_refusal(query, SERVFAIL)
        self._pending += 1
        try:
            return await self._ask_all(query, tcp=tcp)
        finally:
            self._pending -= 1

    async def _ask_all(self, query: Query, *, tcp: bool) -> bytes:
        for place in self.upstreams:
            failures, since = self._failed.get(place, (0, 0.0))
            if failures >= FAILURES and self._clock.monotonic() - since < ASIDE_S:
                continue
            number = secrets.randbelow(1 << 16)
            own = msgspec.structs.replace(query, id=number, raw=with_number(query.raw, number))
            try:
                data = await self._limited(_ask_udp, place, own)
                keep_s, short = read_reply(data, own)
                if short and tcp:
                    data = await self._limited(_ask_tcp, place, own)
                    keep_s, _ = read_reply(data, own)
            except (OSError, TimeoutError, EOFError, Rejected):
                self._failed[place] = (failures + 1, self._clock.monotonic())
                continue
            self._failed.pop(place, None)
            self._keep(query, data, keep_s)
            return with_number(data, query.id)
        return write_refusal(query, SERVFAIL)

    async def _limited(
        self, ask: Callable[[str, Query], Coroutine[None, None, bytes]], place: str, query: Query
    ) -> bytes:
        asking = asyncio.ensure_future(ask(place, query))
        limit = asyncio.ensure_future(self._clock.sleep(TIMEOUT_S))
        try:
            await asyncio.wait((asking, limit), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise TimeoutError
            return asking.result()
        finally:
            asking.cancel()
            limit.cancel()

    def _keep(self, query: Query, data: bytes, keep_s: int) -> None:
        if keep_s <= 0:
            return
        now = self._clock.monotonic()
        try:
            aged(data, 0)
        except Exception:  # what the library cannot write again is passed on, and not kept
            return
        self._kept[query.raw[2:]] = _Kept(data, now, now + min(keep_s, MAX_KEPT_S))
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def split_place(place: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[HOST]:PORT`."""
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)


async def _ask_udp(place: str, query: Query) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Reply(query), remote_addr=split_place(place)
    )
    try:
        transport.sendto(query.raw)
        return await protocol.answer
    finally:
        transport.close()


async def _ask_tcp(place: str, query: Query) -> bytes:
    host, port = split_place(place)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(struct.pack("!H", len(query.raw)) + query.raw)
        await writer.drain()
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
