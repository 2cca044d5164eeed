"""HostRuntime: the runtimes of one host as one: containers where there is an engine, processes always.

What has a `container` goes to the engine. While the engine does not answer, its instances are shown as they were
seen last: a container outlives its engine's service, and what we cannot see has not ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from skerry.kit.errors import Rejected, Unavailable
from skerry.ports.runtime import Engine, ExecResult, InstanceSpec, InstanceView, Output, Runtime

_log = structlog.get_logger()


class HostRuntime:
    """A `Runtime` over a process runtime and, when one was attached, a container runtime."""

    def __init__(self, processes: Runtime) -> None:
        self._processes = processes
        self._containers: Runtime | None = None
        self._seen: Mapping[str, InstanceView] = {}
        self._begun: set[str] = set()
        self._away = False
        self._attached = asyncio.Event()

    def attach(self, containers: Runtime) -> None:
        """Use a container engine from now on."""
        self._containers = containers
        self._attached.set()

    async def start(self, spec: InstanceSpec) -> None:
        """See `Runtime.start`."""
        if spec.container is None:
            await self._processes.start(spec)
        elif self._containers is None:
            raise Rejected("runtime.cannot", "this host has no container engine", id=spec.id)
        else:
            self._begun.add(spec.id)
            await self._containers.start(spec)

    async def stop(self, instance_id: str, *, signal: str, grace_s: float) -> None:
        """See `Runtime.stop`."""
        await self._of(instance_id).stop(instance_id, signal=signal, grace_s=grace_s)

    async def signal(self, instance_id: str, signal: str) -> None:
        """See `Runtime.signal`."""
        await self._of(instance_id).signal(instance_id, signal)

    async def remove(self, instance_id: str) -> None:
        """See `Runtime.remove`."""
        await self._of(instance_id).remove(instance_id)

    async def instances(self) -> Mapping[str, InstanceView]:
        """See `Runtime.instances`."""
        processes = await self._processes.instances()
        if self._containers is None:
            return processes
        try:
            self._seen = await self._containers.instances()
        except Unavailable as error:
            if not self._away:
                _log.warning("engine.away", reason=error.message)
            self._away = True
        else:
            self._begun.clear()
            if self._away:
                _log.info("engine.back")
            self._away = False
        return {**self._seen, **processes}

    async def execute(self, instance_id: str, command: tuple[str, ...], *, timeout_s: float) -> ExecResult:
        """See `Runtime.execute`."""
        return await self._of(instance_id).execute(instance_id, command, timeout_s=timeout_s)

    async def logs(self, instance_id: str, *, tail_bytes: int) -> bytes:
        """See `Runtime.logs`."""
        return await self._of(instance_id).logs(instance_id, tail_bytes=tail_bytes)

    async def output(self, instance_id: str, *, mark: str, limit: int) -> Output:
        """See `Runtime.output`."""
        return await self._of(instance_id).output(instance_id, mark=mark, limit=limit)

    async def engine(self) -> Engine:
        """See `Runtime.engine`: the container engine where there is one."""
        own = await self._processes.engine()
        if self._containers is None:
            return own
        engine = await self._containers.engine()
        return Engine(
            name=engine.name, version=engine.version, rootless=engine.rootless, can=engine.can | own.can
        )

    async def gateways(self, networks: Sequence[str]) -> Mapping[str, str]:
        """See `Runtime.gateways`."""
        return await self._containers.gateways(networks) if self._containers is not None else {}

    async def watch(self, on_change: Callable[[], None]) -> None:
        """See `Runtime.watch`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._processes.watch(on_change))
            await self._attached.wait()
            assert self._containers is not None
            group.create_task(self._containers.watch(on_change))

    def _of(self, instance_id: str) -> Runtime:
        if self._containers is not None and (instance_id in self._seen or instance_id in self._begun):
            return self._containers
        return self._processes
