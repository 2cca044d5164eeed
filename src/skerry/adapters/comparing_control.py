"""Keeps the process that copies and compares: an instance of its own, there while something is copied.

It outlives the agent, as the proxy does. One that died is started anew by `serve`; until then the proxy asks the live
release itself.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry import __version__
from skerry.adapters.comparing_words import MAX_LINE_BYTES, Pair, Said, Told
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Unavailable
from skerry.ports.clock import Clock
from skerry.ports.proxy import ShadowCounts
from skerry.ports.runtime import InstanceSpec, Limits, Runtime

INSTANCE = "comparing"
MARK = "mark"
START_LIMIT_S = 30.0
ANSWER_LIMIT_S = 5.0
STOP_S = 10.0
LOG_BYTES = 64 << 10
_LOOK_S = 0.05


class ComparingProcess:
    """`folder` is for this process's owner alone; its sockets lie there."""

    def __init__(self, folder: Path, runtime: Runtime, clock: Clock) -> None:
        self._folder = folder
        self._socket = folder / "compare"
        self._runtime = runtime
        self._clock = clock

    async def is_alive(self) -> bool:
        """Tell whether it runs, as this version of Skerry has it."""
        view = (await self._runtime.instances()).get(INSTANCE)
        return view is not None and view.state == "running" and view.labels.get(MARK) == __version__

    async def serve(self, pairs: tuple[Pair, ...]) -> None:
        """Have these pairs served, and no others; without pairs it ends when it has finished what it has.

        Raises:
            Unavailable: it does not start or does not answer (`shadow.away`).
        """
        if await self.is_alive():
            await self._tell(Told(pairs))
            return
        if not pairs:
            return
        await self._start()
        deadline = self._clock.monotonic() + START_LIMIT_S
        while True:
            try:
                await self._tell(Told(pairs))
                return
            except Unavailable:
                if self._clock.monotonic() > deadline or not await self.is_alive():
                    raise
            await self._clock.sleep(_LOOK_S)

    async def counts(self) -> Mapping[str, ShadowCounts]:
        """Return what came of copies; nothing where it does not run.

        Raises:
            Unavailable: it does not answer (`shadow.away`).
        """
        return (await self._tell(Told())).counts if await self.is_alive() else {}

    async def stop(self) -> None:
        """End it, once it has finished what it has."""
        if INSTANCE not in await self._runtime.instances():
            return
        await self._runtime.stop(INSTANCE, signal="SIGTERM", grace_s=STOP_S)
        deadline = self._clock.monotonic() + 2 * STOP_S
        while self._clock.monotonic() < deadline:
            view = (await self._runtime.instances()).get(INSTANCE)
            if view is None or view.state not in ("running", "stopping"):
                break
            await self._clock.sleep(_LOOK_S)
        await self._runtime.remove(INSTANCE)

    async def _start(self) -> None:
        await self.stop()
        spec = InstanceSpec(
            id=INSTANCE,
            command=(sys.executable, "-m", "skerry.adapters.comparing_process", str(self._socket)),
            env={},
            directory=self._folder,
            limits=Limits(log_bytes=LOG_BYTES),
            labels={MARK: __version__},
        )
        await self._runtime.start(spec)

    async def _tell(self, told: Told) -> Said:
        line = await asyncio.to_thread(self._exchange, msgspec.json.encode(told) + b"\n")
        try:
            said = msgspec.json.decode(line, type=Said)
        except UNREADABLE as error:
            raise _away("its answer is no JSON") from error
        if said.problem:
            raise _away(said.problem)
        return said

    def _exchange(self, line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_LIMIT_S)
            try:
                connection.connect(str(self._socket))
                connection.sendall(line)
                found = bytearray()
                while not found.endswith(b"\n") and len(found) <= MAX_LINE_BYTES:
                    piece = connection.recv(1 << 16)
                    if not piece:
                        break
                    found += piece
            except OSError as error:
                raise _away(str(error) or type(error).__name__) from error
        return bytes(found)


def _away(why: str) -> Unavailable:
    return Unavailable("shadow.away", f"what copies and compares does not answer: {why}")
