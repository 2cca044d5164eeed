"""Copies requests to a release on trial and compares its answers with those that clients got.

Rules:
- A request goes to the live release first, piece by piece as it comes, and its answer to the client in the same way.
  Only then, and only if all of it was short enough to be kept, is the request asked of the other release.
- Copies wait in a queue that is bounded in number and bytes; what does not fit is not compared, and is counted as that.
- What the other release answers, how late, or that it does not, changes nothing for clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Mapping

import h11
import msgspec

from skerry.adapters.comparing_http import BROKEN, Kept, Peer, as_server, ask, connect, cut_short, passed_on
from skerry.adapters.comparing_words import Pair
from skerry.kit.quantities import parse_duration, parse_size
from skerry.ports.proxy import LATENCY_BOUNDS_MS, ShadowCounts
from skerry.telemetry.agreement import Answer, compare_answers

MAX_WAITING = 64
MAX_WAITING_BYTES = 64 << 20
AT_A_TIME = 4
IDLE_S = 1.0
"""Shorter than servers keep an idle connection."""
FAILED = 500
MAX_GONE = 32
"""Pairs that are not served any more, and whose counts are kept."""
GONE_LOOK_S = 0.5
MARK = (b"x-skerry-shadow", b"1")
"""Says to the release on trial that a request is a copy."""


class _Tally:
    """What is counted of one pair."""

    def __init__(self, run: str, beside: str) -> None:
        self._run, self.beside = run, beside
        self.requests = self.uncompared = self.compared = self.differing = self.errors = 0
        self._times = dict.fromkeys((*LATENCY_BOUNDS_MS, float("inf")), 0)
        self._live_times = dict(self._times)

    def add_times(self, live_s: float, other_s: float | None) -> None:
        _add(self._live_times, live_s)
        if other_s is not None:
            _add(self._times, other_s)

    @property
    def counts(self) -> ShadowCounts:
        return ShadowCounts(
            run=self._run,
            beside=self.beside,
            requests=self.requests,
            uncompared=self.uncompared,
            compared=self.compared,
            differing=self.differing,
            errors=self.errors,
            latency_ms=dict(self._times),
            live_latency_ms=dict(self._live_times),
        )


def _add(times: dict[float, int], seconds: float) -> None:
    for bound in times:
        times[bound] += seconds * 1000 <= bound


class _Copy(msgspec.Struct, frozen=True):
    pair: Pair
    request: h11.Request
    body: bytes
    answer: Answer
    live_s: float

    @property
    def size_bytes(self) -> int:
        return len(self.body) + len(self.answer.body)


class Comparer:
    """Serves pairs at their sockets, and compares in turn."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(6)
        self._pairs: dict[str, Pair] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._tallies: dict[str, _Tally] = {}
        self._waiting: deque[_Copy] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def counts(self) -> Mapping[str, ShadowCounts]:
        """What came of copies so far, by the id of the pair, also of those that are not served any more."""
        return {key: tally.counts for key, tally in self._tallies.items()}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is served, under way or waiting."""
        return not (self._servers or self._serving or self._waiting)

    async def serve(self, pairs: tuple[Pair, ...]) -> None:
        """Serve these pairs and no others; requests under way are finished.

        Raises:
            OSError: a socket cannot be made.
        """
        self._pairs = {pair.id: pair for pair in pairs}
        for pair in pairs:
            known = self._tallies.get(pair.id)
            if known is None or known.beside != pair.beside:
                self._tallies[pair.id] = _Tally(f"{self._run}/{pair.beside}", pair.beside)
            if pair.id not in self._servers:
                self._servers[pair.id] = await self._listen(pair)
        for key in [key for key in self._servers if key not in self._pairs]:
            self._servers.pop(key).close()
        gone = [key for key in self._tallies if key not in self._pairs]
        for key in gone[: max(0, len(gone) - MAX_GONE)]:
            del self._tallies[key]
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(AT_A_TIME)]

    async def close(self, *, finish_s: float = 0.0) -> None:
        """Take nothing new, let requests under way finish for so long, and end what is left."""
        await self.serve(())
        if self._serving and finish_s:
            await asyncio.wait(self._serving, timeout=finish_s)
        for task in (*self._workers, *self._serving):
            task.cancel()
        await asyncio.gather(*self._workers, *self._serving, return_exceptions=True)

    async def _listen(self, pair: Pair) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._serving.add(task)
            try:
                await self._connection(pair, as_server(reader, writer))
            finally:
                self._serving.discard(task)

        return await asyncio.start_unix_server(accept, pair.socket)

    async def _connection(self, pair: Pair, client: Peer) -> None:
        """Answer the requests of one connection of the proxy's, one after the other."""
        held = [client]
        watch = asyncio.create_task(_end_when_gone(client, held))
        used_at = 0.0
        try:
            while isinstance(request := await client.receive(), h11.Request):
                # One that came while its pair went is answered all the same, and not copied.
                pair = self._pairs.get(pair.id, pair)
                if len(held) > 1 and (not held[1].is_reusable or time.monotonic() - used_at > IDLE_S):
                    held.pop().close()
                if len(held) > 1:
                    held[1].http.start_next_cycle()
                else:
                    held.append(await connect(pair.live_port))
                await self._exchange(pair, request, client, held[1])
                used_at = time.monotonic()
                if not client.is_reusable:
                    return
                client.http.start_next_cycle()
        except BROKEN:
            # The proxy sees that this connection ends, and does what it does when a backend's does.
            return
        finally:
            watch.cancel()
            for peer in held:
                peer.close()

    async def _exchange(self, pair: Pair, request: h11.Request, client: Peer, live: Peer) -> None:
        """Pass one request on and its answer back, and have it copied."""
        tally = self._tallies[pair.id]
        tally.requests += 1
        began, most = time.monotonic(), parse_size(pair.rule.max_body)
        body, kept = Kept(most), Kept(most)
        headers = passed_on(request.headers)
        asked = h11.Request(method=request.method, target=request.target, headers=headers)
        copied = False
        await live.send(asked)
        pump = asyncio.create_task(_pass_on(client, live, body))
        try:
            status = await _pass_back(live, client, kept)
            live_s = time.monotonic() - began
            if body.is_whole and body.fits and kept.fits and status < FAILED:
                plain = [(k, v) for k, v in headers if k not in (b"transfer-encoding", b"content-length")]
                length = [(b"content-length", str(len(body.content)).encode())] if body.content else []
                again = h11.Request(
                    method=request.method, target=request.target, headers=[*plain, *length, MARK]
                )
                copied = self._offer(_Copy(pair, again, body.content, Answer(status, kept.content), live_s))
        finally:
            tally.uncompared += not copied
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, *BROKEN):
                await pump

    def _offer(self, copy: _Copy) -> bool:
        if copy.pair.id not in self._pairs:
            return False
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + copy.size_bytes > MAX_WAITING_BYTES:
            return False
        self._waiting.append(copy)
        self._waiting_bytes += copy.size_bytes
        self._more.set()
        return True

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            copy = self._waiting.popleft()
            self._waiting_bytes -= copy.size_bytes
            await self._compare(copy)

    async def _compare(self, copy: _Copy) -> None:
        tally, rule = self._tallies[copy.pair.id], copy.pair.rule
        began = time.monotonic()
        try:
            async with asyncio.timeout(parse_duration(rule.timeout)):
                status, kept = await ask(copy.pair.port, copy.request, copy.body, parse_size(rule.max_body))
        except BROKEN:
            status, kept = 0, Kept(0)
        taken_s = time.monotonic() - began
        other = Answer(status, kept.content)
        # What is long takes long to compare, and clients of other requests do not wait for it.
        agreement = await asyncio.to_thread(compare_answers, rule, copy.answer, other)
        if status and not kept.fits:
            agreement = "incomparable"
        if agreement == "incomparable":
            tally.uncompared += 1
            return
        tally.compared += 1
        tally.differing += agreement == "differs"
        tally.errors += status == 0 or status >= FAILED
        tally.add_times(copy.live_s, taken_s if status else None)


async def _end_when_gone(client: Peer, held: list[Peer]) -> None:
    """End all connections when the client's has ended: nobody waits for an answer then."""
    while not client.is_gone:  # noqa: ASYNC110  a stream tells nobody that it ended but who reads it
        await asyncio.sleep(GONE_LOOK_S)
    for peer in held:
        peer.close()


async def _pass_on(client: Peer, live: Peer, body: Kept) -> None:
    """Send a request's body to the live release as it comes."""
    while True:
        event = await client.receive()
        if isinstance(event, h11.Data):
            body.add(event.data)
            await live.send(h11.Data(data=event.data))
        elif isinstance(event, h11.EndOfMessage):
            body.is_whole = True
            await live.send(h11.EndOfMessage(headers=event.headers))
            return
        else:
            raise cut_short()


async def _pass_back(live: Peer, client: Peer, kept: Kept) -> int:
    """Send the live release's answer to the client as it comes; return its status."""
    status = 0
    while True:
        event = await live.receive()
        if isinstance(event, h11.Response):
            status = event.status_code
            answer = h11.Response(status_code=status, headers=passed_on(event.headers), reason=event.reason)
            await client.send(answer)
        elif isinstance(event, h11.Data):
            kept.add(event.data)
            await client.send(h11.Data(data=event.data))
        elif isinstance(event, h11.EndOfMessage):
            kept.is_whole = True
            await client.send(h11.EndOfMessage(headers=event.headers))
            return status
        elif not isinstance(event, h11.InformationalResponse):
            raise cut_short()
