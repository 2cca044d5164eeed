"""Finds the host's container engine, hands it to those who use it, and tells what it is as facts.

An engine that was found once counts as there from then on: when it does not answer, what needs it waits, and
nothing is refused for want of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from skerry.agent.host_runtime import HostRuntime
from skerry.agent.preparing import Preparer
from skerry.kit.errors import Unavailable
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.images import Images
from skerry.ports.runtime import Runtime
from skerry.spec.facts import Fact, HostFacts

_log = structlog.get_logger()

FIND_EVERY_S = 15.0
DESCRIBE_EVERY_S = 600.0


class Found(msgspec.Struct, frozen=True):
    """An engine that answers, and where it was found."""

    source: str
    runtime: Runtime
    images: Images


class _Known(msgspec.Struct, frozen=True):
    """What is remembered of an engine."""

    name: str = ""
    version: str = ""
    rootless: bool = False
    source: str = ""


class EngineFinder:
    """`find` looks for an engine and may block for seconds; it is called in a thread."""

    def __init__(
        self,
        find: Callable[[], Found | None],
        runtime: HostRuntime,
        preparer: Preparer,
        store: AgentStore,
        clock: Clock,
    ) -> None:
        self._find = find
        self._runtime = runtime
        self._preparer = preparer
        self._store = store
        self._clock = clock
        self._found: Found | None = None
        self._known = msgspec.json.decode(store.load("engine") or b"{}", type=_Known)

    def facts(self) -> HostFacts:
        """Return what is known of the engine."""
        known = self._known
        if not known.name:
            return {}
        return {
            "engine": Fact(value=known.name, source=known.source),
            "engine_version": Fact(value=known.version, source=known.source),
            "engine.rootless": Fact(value=known.rootless, source=known.source),
        }

    async def look(self) -> float:
        """Look for an engine, or at the one that was found, and return when to look again."""
        if self._found is None:
            self._found = await asyncio.to_thread(self._find)
            if self._found is None:
                return FIND_EVERY_S
            self._runtime.attach(self._found.runtime)
            self._preparer.attach(self._found.images)
            _log.info("engine.found", source=self._found.source)
        try:
            engine = await self._found.runtime.engine()
        except Unavailable as error:
            _log.info("engine.silent", reason=error.message)
            return FIND_EVERY_S
        known = _Known(engine.name, engine.version, engine.rootless, self._found.source)
        if known != self._known:
            self._known = known
            self._store.save({"engine": msgspec.json.encode(known)})
        return DESCRIBE_EVERY_S

    async def run_forever(self) -> None:
        """Keep looking."""
        while True:
            await self._clock.sleep(await self.look())
