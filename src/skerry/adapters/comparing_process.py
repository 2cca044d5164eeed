"""The process that copies and compares: `python -m skerry.adapters.comparing_process SOCKET`.

It is told at SOCKET what to do: each connection there says one line of JSON, a `Told`, and gets one back, a `Said`.
Told of no pairs the process goes on until nothing is under way, and so long that what was counted last is asked for;
then it ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import msgspec

from skerry.adapters.comparing import Comparer
from skerry.adapters.comparing_words import MAX_LINE_BYTES, Said, Told
from skerry.kit.canonical import UNREADABLE

LINGER_S = 60.0
"""Longer than it takes until the agent looks at counts again."""
STOP_S = 10.0
_LOOK_S = 0.2
_LINE_S = 10.0


class _Desk:
    """Answers whoever asks at the socket; it is for the owner of its folder alone."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer
        self.wanted = True

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_LINE_S):
                line = await reader.readuntil(b"\n")
                writer.write(msgspec.json.encode(await self._do(line)) + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, line: bytes) -> Said:
        try:
            told = msgspec.json.decode(line, type=Told)
        except UNREADABLE as error:
            return Said(problem=str(error))
        if told.pairs is not None:
            try:
                await self._comparer.serve(told.pairs)
            except OSError as error:
                return Said(problem=f"no socket: {error}")
            self.wanted = bool(told.pairs)
        return Said(self._comparer.counts)


async def run(socket: str) -> None:
    """Serve until told to end by a signal, or until there has been nothing to do for a while."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    comparer = Comparer()
    desk = _Desk(comparer)
    server = await asyncio.start_unix_server(desk.answer, socket, limit=MAX_LINE_BYTES)
    idle_since = loop.time()
    while not over.is_set():
        if desk.wanted or not comparer.is_idle:
            idle_since = loop.time()
        if loop.time() - idle_since > LINGER_S:
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _LOOK_S)
    server.close()
    await comparer.serve(())
    await comparer.close(finish_s=STOP_S)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
