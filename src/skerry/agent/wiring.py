"""Names the adapters of an agent and runs its loops."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.host_facts import override_facts, read_facts
from skerry.adapters.net_prober import NetProber
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.adapters.system_clock import SystemClock
from skerry.agent.fetcher import Fetcher
from skerry.agent.identity import Identity, load_identity
from skerry.agent.loops.probe import ProbeLoop
from skerry.agent.loops.reconcile import Parts, Reconciler
from skerry.agent.loops.sync import Syncer
from skerry.agent.releases import Releases
from skerry.carrier.link import HttpLink
from skerry.kit.errors import Conflict
from skerry.kit.locking import hold
from skerry.ports.runtime import Runtime
from skerry.spec.facts import HostFacts

_log = structlog.get_logger()

FACTS_EVERY_S = 60.0


def run_agent(data: Path, overrides: Mapping[str, str]) -> None:
    """Run the agent of a data directory until SIGTERM or SIGINT. Applications outlive it.

    Raises:
        Missing: the host has not joined a site.
        Conflict: another agent runs on this directory (`agent.running`).
    """
    with lock_data(data):
        identity = load_identity(data)
        override_facts({}, overrides)  # refuse a wrong override before anything runs
        asyncio.run(_run(data, identity, overrides))


def open_runtime(data: Path) -> Runtime:
    """Return the runtime that holds this directory's instances."""
    return ProcessRuntime(data / "instances")


def lock_data(data: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the data directory for this process alone."""
    hint = "one data directory, one agent"
    conflict = Conflict("agent.running", f"another agent runs on {data}", hint=hint)
    return hold(data / "agent.lock", conflict=conflict)


async def _run(data: Path, identity: Identity, overrides: Mapping[str, str]) -> None:
    clock = SystemClock()
    store, fresh = SqliteAgentStore.open(data / "agent.db")
    link = HttpLink(identity.place.upstream, identity.trust_root.ca_pem)
    blobs = DirectoryBlobs(data / "blobs")
    runtime = open_runtime(data)
    syncer = Syncer(identity, store, link, clock)
    if fresh:
        syncer.note(
            "agent.database_lost", "the database was damaged and set aside; beginning with an empty one"
        )
    syncer.note("agent.started")
    parts = Parts(
        store=store,
        blobs=blobs,
        runtime=runtime,
        releases=Releases(data / "releases", blobs),
        fetcher=Fetcher(blobs, link, clock, token=syncer.token, root=data),
        probes=ProbeLoop(NetProber(), runtime, clock),
        syncer=syncer,
        clock=clock,
        facts=CachedFacts(clock, overrides),
    )
    reconciler = Reconciler(parts, host=identity.place.host, site=identity.place.site, data=data)
    await _until_stopped(parts, reconciler, link)


async def _until_stopped(parts: Parts, reconciler: Reconciler, link: HttpLink) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(loop_)
        for loop_ in (
            reconciler.run_forever(),
            parts.probes.run_forever(),
            parts.syncer.poll_forever(),
            parts.syncer.flush_forever(),
        )
    ]
    stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    link.close()
    await parts.fetcher.close()
    for task in (*tasks, stopping):
        task.cancel()
    await asyncio.gather(*tasks, stopping, return_exceptions=True)
    parts.store.close()
    for task in done - {stopping}:
        # A loop never ends by itself: this is a bug, and the service manager starts us again.
        _log.critical("agent.loop_ended", exc_info=task.exception())
        sys.exit(70)


class CachedFacts:
    """Reads the facts again once a minute."""

    def __init__(self, clock: SystemClock, overrides: Mapping[str, str]) -> None:
        self._clock = clock
        self._overrides = overrides
        self._facts: HostFacts = {}
        self._due = 0.0

    def __call__(self) -> HostFacts:
        """Return the facts as last read."""
        if not self._facts or self._clock.monotonic() >= self._due:
            self._facts = override_facts(read_facts(), self._overrides)
            self._due = self._clock.monotonic() + FACTS_EVERY_S
        return self._facts
