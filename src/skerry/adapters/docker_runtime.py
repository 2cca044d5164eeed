"""Runtime on a Docker-compatible engine: each instance is one container, and all that is known is in the engine.

Rules:
- Calls about one instance follow each other. Between agents of one owner a container's name is the lock.
- The old container of an instance goes only when its new one runs.
- A request to stop is kept in the container's name (docker_names.py): a later agent finishes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from skerry.adapters.docker_actions import EngineActions, Settled
from skerry.adapters.docker_engine import EngineFacts
from skerry.adapters.docker_events import EventReader, Told
from skerry.adapters.docker_names import boot_ms, check_owner, signal_number
from skerry.adapters.engine_api import EngineApi
from skerry.kit.errors import SkerryError, Unavailable
from skerry.ports.runtime import Engine, ExecResult, InstanceSpec, InstanceView, Output

T = TypeVar("T")

_CACHE_S = 30.0
_CALLS = 6
_EXECUTIONS = 8
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_KILL_AGAIN_S = 1.0


class DockerRuntime:
    """Components as containers of one owner behind one engine's socket (Podman or Docker)."""

    def __init__(self, socket: Path, *, owner: str) -> None:
        self._api = EngineApi(socket)
        self._owner = check_owner(owner)
        self._facts = EngineFacts(self._api)
        self._actions = EngineActions(self._api, self._owner, self._facts)
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._pool = ThreadPoolExecutor(_CALLS, thread_name_prefix="skerry-engine")
        # Health commands may take their full time; they must not hold up what reads and starts.
        self._execute_pool = ThreadPoolExecutor(_EXECUTIONS, thread_name_prefix="skerry-execute")
        self._deadlines: dict[str, asyncio.Task[None]] = {}
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._watched = 0
        self._cached: tuple[float, Mapping[str, InstanceView]] | None = None
        self._changes = 0

    async def start(self, spec: InstanceSpec) -> None:
        """See `Runtime.start`; an instance that has ended gets a new container.

        Raises:
            Rejected: the engine cannot run it as stated (`runtime.cannot` and others with `runtime.`).
            Unavailable: the image is not there (`runtime.image_missing`), the engine is away or has no room.
        """
        async with self._turn(spec.id):
            try:
                await self._call(lambda: self._actions.start(spec))
            finally:
                self._changed()

    async def stop(self, instance_id: str, *, signal: str, grace_s: float) -> None:
        """See `Runtime.stop`; asked again, the earlier deadline counts."""
        number = signal_number(signal)
        async with self._turn(instance_id):
            try:
                settled = await self._call(lambda: self._actions.stop(instance_id, number, grace_s))
            finally:
                self._changed()
            self._keep_deadline(instance_id, settled)

    async def signal(self, instance_id: str, signal: str) -> None:
        """See `Runtime.signal`."""
        signal_number(signal)
        await self._call(lambda: self._actions.signal(instance_id, signal))

    async def remove(self, instance_id: str) -> None:
        """See `Runtime.remove`; its network goes with the last container in it.

        Raises:
            Unavailable: the engine is away, or cannot remove it now (`runtime.still_running`).
        """
        async with self._turn(instance_id):
            try:
                await self._call(lambda: self._actions.remove(instance_id))
            finally:
                self._changed()

    async def instances(self) -> Mapping[str, InstanceView]:
        """See `Runtime.instances`; while `watch` hears events it costs nothing between them.

        Raises:
            Unavailable: the engine does not answer.
        """
        if self._cached is not None and self._watched and time.monotonic() - self._cached[0] < _CACHE_S:
            return self._cached[1]
        changes = self._changes
        found = await self._call(self._actions.look.all)
        for instance_id, sightings in found.items():
            best = sightings[0]
            is_unkept = best.is_alive and best.mark is not None and instance_id not in self._deadlines
            if is_unkept or self._actions.is_loose(sightings):
                self._settle(instance_id)
        views = {name: seen[0].view for name, seen in found.items() if not seen[0].is_fresh}
        if changes == self._changes:
            self._cached = (time.monotonic(), views)
        return views

    async def execute(self, instance_id: str, command: tuple[str, ...], *, timeout_s: float) -> ExecResult:
        """See `Runtime.execute`; 127 also for an instance that does not run."""
        return await asyncio.get_running_loop().run_in_executor(
            self._execute_pool, lambda: self._actions.execute(instance_id, command, timeout_s)
        )

    async def logs(self, instance_id: str, *, tail_bytes: int) -> bytes:
        """See `Runtime.logs`; only the output of the newest run, and on Podman less right after its file was full."""
        return await self._call(lambda: self._actions.logs(instance_id, tail_bytes))

    async def output(self, instance_id: str, *, mark: str, limit: int) -> Output:
        """See `Runtime.output`; the engine says when each line was written."""
        return await self._call(lambda: self._actions.output(instance_id, mark, limit))

    async def engine(self) -> Engine:
        """See `Runtime.engine`."""
        return await self._call(self._facts.engine)

    async def gateways(self, networks: Sequence[str]) -> Mapping[str, str]:
        """See `Runtime.gateways`."""
        return await self._call(lambda: self._actions.gateways(networks))

    async def watch(self, on_change: Callable[[], None]) -> None:
        """See `Runtime.watch`; also called when the stream of events is connected, or is lost."""
        pause_s = _FIRST_PAUSE_S
        while True:
            if await self._watch_once(on_change):
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _watch_once(self, on_change: Callable[[], None]) -> bool:
        """Watch one connection to its end; tell whether there was one."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        is_open = was_open = False

        def hear(told: Told) -> None:
            nonlocal is_open, was_open
            if ended.is_set():
                return
            if told == "opened":
                is_open = was_open = True
                self._watched += 1
            elif told == "ended":
                ended.set()
            if was_open:
                self._changed()
                on_change()

        def tell(told: Told) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(hear, told)

        reader = EventReader(self._api, self._owner, tell)
        reader.start()
        try:
            await ended.wait()
        finally:
            ended.set()
            reader.cut()
            if is_open:
                self._watched -= 1
        return was_open

    def _settle(self, instance_id: str) -> None:
        """Finish in the background what an earlier agent or this one left undone."""
        if instance_id not in self._settling:
            task = asyncio.get_running_loop().create_task(self._settle_now(instance_id))
            self._settling[instance_id] = task
            task.add_done_callback(lambda _: self._settling.pop(instance_id, None))

    async def _settle_now(self, instance_id: str) -> None:
        async with self._turn(instance_id):
            # Tried again at the next look.
            with contextlib.suppress(SkerryError):
                settled = await self._call(lambda: self._actions.settle(instance_id))
                self._changed()
                self._keep_deadline(instance_id, settled)

    def _keep_deadline(self, instance_id: str, settled: Settled | None) -> None:
        """See to it that a container is killed at its deadline, instead of what was planned before."""
        earlier = self._deadlines.pop(instance_id, None)
        if earlier is not None:
            earlier.cancel()
        if settled is None:
            return
        task = asyncio.get_running_loop().create_task(self._kill_at(instance_id, settled))
        self._deadlines[instance_id] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._deadlines.get(instance_id) is done:
                del self._deadlines[instance_id]

        task.add_done_callback(forget)

    async def _kill_at(self, instance_id: str, settled: Settled) -> None:
        # In steps: this clock goes on while the machine sleeps, and the loop's does not.
        while (left_ms := settled.deadline_ms - boot_ms()) > 0:  # noqa: ASYNC110 - a clock, not an event
            await asyncio.sleep(min(left_ms / 1000, 60.0))
        while True:
            # An engine that does not answer now is asked again: what was promised is that it ends.
            with contextlib.suppress(Unavailable):
                if await self._call(lambda: self._actions.kill(settled)):
                    break
            await asyncio.sleep(_KILL_AGAIN_S)
        self._changed()

    def _turn(self, instance_id: str) -> asyncio.Lock:
        return self._turns.setdefault(instance_id, asyncio.Lock())

    def _changed(self) -> None:
        self._changes += 1
        self._cached = None

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
