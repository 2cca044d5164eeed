"""The probe loop: asks components how they are, each on its own beat, and keeps the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from skerry.carrier.waking import sleep_unless_woken
from skerry.kit.quantities import parse_duration
from skerry.ports.clock import Clock
from skerry.ports.prober import Prober
from skerry.ports.runtime import Runtime
from skerry.reconcile.probing import ProbeKind, ProbeState, begin_probing, due_probes, next_due, note_answer
from skerry.spec.application import Probe, Probes

LOCAL = "127.0.0.1"


class Watched(msgspec.Struct, frozen=True):
    """One life of an instance: which run it is, what to ask, and where."""

    run: str
    probes: Probes
    ports: Mapping[str, int]


class ProbeLoop:
    """Probes the instances it is given; `states` holds what is known."""

    def __init__(self, prober: Prober, runtime: Runtime, clock: Clock) -> None:
        self._prober = prober
        self._runtime = runtime
        self._clock = clock
        self._watched: dict[str, Watched] = {}
        self._asking: set[tuple[str, ProbeKind]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self.states: dict[str, ProbeState] = {}
        self.on_change: Callable[[], None] = lambda: None

    def watch(self, instances: Mapping[str, Watched]) -> None:
        """Probe these instances and no others; a new run begins anew."""
        for key in [key for key in self._watched if key not in instances]:
            del self._watched[key]
            self.states.pop(key, None)
        for key, watched in instances.items():
            if key not in self._watched or self._watched[key].run != watched.run:
                self._watched[key] = watched
                self.states[key] = begin_probing(watched.probes, self._clock.monotonic())
                self._wake.set()

    async def run_forever(self) -> None:
        """Ask whatever is due, for ever."""
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            for key, watched in list(self._watched.items()):
                for kind, probe in due_probes(watched.probes, self.states[key], now):
                    if (key, kind) not in self._asking:
                        self._asking.add((key, kind))
                        task = asyncio.create_task(self._ask(key, watched, kind, probe))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
            await self._rest()

    async def _rest(self) -> None:
        busy = {key for key, _ in self._asking}
        times = [
            due
            for key, watched in self._watched.items()
            if key not in busy and (due := next_due(watched.probes, self.states[key])) is not None
        ]
        # A busy instance wakes the loop with its answer; with none due there is nothing to wait for but that.
        rest_s = max(0.01, min(times, default=60.0) - self._clock.monotonic())
        await sleep_unless_woken(self._clock, rest_s, self._wake)

    async def _ask(self, key: str, watched: Watched, kind: ProbeKind, probe: Probe) -> None:
        failure: str | None = "the probe itself failed"
        try:
            failure = await self._answer(key, watched, probe)
        finally:
            self._asking.discard((key, kind))
            current = self._watched.get(key)
            if current is not None and current.run == watched.run:
                before = self.states[key]
                state = note_answer(watched.probes, before, kind, failure, self._clock.monotonic())
                self.states[key] = state
                if (state.started, state.ready, state.dead, state.why) != (
                    before.started,
                    before.ready,
                    before.dead,
                    before.why,
                ):
                    self.on_change()
            self._wake.set()

    async def _answer(self, key: str, watched: Watched, probe: Probe) -> str | None:
        timeout_s = parse_duration(probe.timeout)
        if probe.http is not None:
            return await self._prober.http(
                LOCAL, watched.ports[probe.http.port], probe.http.path, timeout_s=timeout_s
            )
        if probe.tcp is not None:
            return await self._prober.tcp(LOCAL, watched.ports[probe.tcp.port], timeout_s=timeout_s)
        assert probe.exec is not None
        result = await self._runtime.execute(key, probe.exec.command, timeout_s=timeout_s)
        if result.exit_code == 0:
            return None
        output = result.output.decode(errors="replace").strip()[:200]
        return f"exit code {result.exit_code}" + (f": {output}" if output else "")
