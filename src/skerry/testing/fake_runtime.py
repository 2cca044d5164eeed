"""FakeRuntime: components that exist in memory only and do what a test says, on the test's clock.

Rules:
- It passes the contract suite of the real adapters (tests/contract/test_runtime.py).
- Nothing happens in the background: what has come to pass is worked out from the clock when asked.
- The host outlives the runtime, as real processes outlive the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from signal import Signals
from typing import Literal

import msgspec

from skerry.kit.errors import Rejected, SkerryError, Unavailable
from skerry.ports.clock import Clock
from skerry.ports.runtime import Engine, ExecResult, InstanceSpec, InstanceView, Output


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What a command does: it runs for ever unless stated.

    `executes` answers commands run beside it; one that is not named is not there (127).
    """

    exits_after_s: float | None = None
    exit_code: int = 0
    refuses: SkerryError | None = None
    ignores_stop: bool = False
    output: bytes = b""
    executes: Mapping[tuple[str, ...], ExecResult] = {}


class _Run(msgspec.Struct, kw_only=True):
    spec: InstanceSpec
    behaviour: Behaviour
    pid: int
    started_at: datetime
    started: float
    ends: float | None
    exit_code: int | None
    stopping: bool = False
    lost: bool = False


class FakeHost:
    """The machine: what runs on it, what it wrote, and what each command does there."""

    def __init__(self) -> None:
        self.runs: dict[str, _Run] = {}
        self.output: dict[str, bytes] = {}
        self.behaviours: dict[tuple[str, ...], Behaviour] = {}
        self.starts: list[str] = []
        self.stops: list[tuple[str, str, float]] = []
        self.signals: list[tuple[str, str]] = []
        self.next_pid = 100


class FakeRuntime:
    """A Runtime on a FakeHost. Commands that were given no behaviour run for ever and write nothing.

    `host.starts` and `host.stops` list what was really done, in order.
    """

    def __init__(self, clock: Clock, host: FakeHost | None = None) -> None:
        self.host = host or FakeHost()
        self._clock = clock

    def behave(self, command: tuple[str, ...], behaviour: Behaviour) -> None:
        """State what a command does from its next start on."""
        self.host.behaviours[command] = behaviour

    def reboot(self) -> None:
        """Lose all that runs, as a power cut does."""
        for run in self.host.runs.values():
            if self._ended(run) is None:
                run.lost = True

    def crash(self, instance_id: str, exit_code: int = 1) -> None:
        """End a running instance now."""
        run = self.host.runs[instance_id]
        if self._ended(run) is None:
            run.ends, run.exit_code = self._clock.monotonic(), exit_code

    async def start(self, spec: InstanceSpec) -> None:
        """See `Runtime.start`."""
        run = self.host.runs.get(spec.id)
        if run is not None and self._ended(run) is None and not run.lost:
            return
        behaviour = self.host.behaviours.get(spec.command, Behaviour())
        if not spec.command:
            raise Rejected("runtime.command_missing", "no command", id=spec.id)
        if behaviour.refuses is not None:
            raise behaviour.refuses
        now = self._clock.monotonic()
        after = behaviour.exits_after_s
        self.host.next_pid += 1
        self.host.starts.append(spec.id)
        self.host.runs[spec.id] = _Run(
            spec=spec,
            behaviour=behaviour,
            pid=self.host.next_pid,
            started_at=self._clock.now(),
            started=now,
            ends=None if after is None else now + after,
            exit_code=None if after is None else behaviour.exit_code,
        )
        output = self.host.output.get(spec.id, b"") + behaviour.output
        limit = spec.limits.log_bytes
        self.host.output[spec.id] = output[-limit:] if limit else output

    async def stop(self, instance_id: str, *, signal: str, grace_s: float) -> None:
        """See `Runtime.stop`; a component that does not ignore the signal ends at once."""
        if signal not in Signals.__members__:
            raise Rejected("runtime.signal_unknown", f"there is no signal {signal!r}")
        run = self.host.runs.get(instance_id)
        if run is None or run.lost or self._ended(run) is not None:
            return
        self.host.stops.append((instance_id, signal, grace_s))
        run.stopping = True
        number = Signals[signal]
        is_deaf = run.behaviour.ignores_stop and number != Signals.SIGKILL
        ends = self._clock.monotonic() + (max(0.0, grace_s) if is_deaf else 0.0)
        if run.ends is None or ends < run.ends:
            run.ends, run.exit_code = ends, -(Signals.SIGKILL if is_deaf else number)

    async def signal(self, instance_id: str, signal: str) -> None:
        """See `Runtime.signal`; `host.signals` lists what was sent."""
        if signal not in Signals.__members__:
            raise Rejected("runtime.signal_unknown", f"there is no signal {signal!r}")
        run = self.host.runs.get(instance_id)
        if run is not None and not run.lost and self._ended(run) is None:
            self.host.signals.append((instance_id, signal))

    async def engine(self) -> Engine:
        """See `Runtime.engine`."""
        return Engine(name="process", can=frozenset({"processes", "containers"}))

    async def gateways(self, networks: Sequence[str]) -> Mapping[str, str]:
        """See `Runtime.gateways`; there are no networks here."""
        return {}

    async def watch(self, on_change: Callable[[], None]) -> None:
        """See `Runtime.watch`; nothing tells of changes here."""
        await asyncio.Event().wait()

    async def remove(self, instance_id: str) -> None:
        """See `Runtime.remove`."""
        self.host.runs.pop(instance_id, None)
        self.host.output.pop(instance_id, None)

    async def instances(self) -> Mapping[str, InstanceView]:
        """See `Runtime.instances`."""
        return {instance_id: self._view(run) for instance_id, run in self.host.runs.items()}

    async def execute(self, instance_id: str, command: tuple[str, ...], *, timeout_s: float) -> ExecResult:
        """See `Runtime.execute`; takes no time."""
        run = self.host.runs.get(instance_id)
        if run is None or run.lost or self._ended(run) is not None:
            return ExecResult(127, f"{instance_id} does not run".encode())
        missing = ExecResult(127, f"{' '.join(command[:1])}: no such command".encode())
        answer = run.behaviour.executes.get(command, missing)
        return ExecResult(answer.exit_code, answer.output[:4096])

    async def logs(self, instance_id: str, *, tail_bytes: int) -> bytes:
        """See `Runtime.logs`."""
        output = self.host.output.get(instance_id, b"")
        return output[max(0, len(output) - tail_bytes) :]

    async def output(self, instance_id: str, *, mark: str, limit: int) -> Output:
        """See `Runtime.output`; the mark is how many bytes were read."""
        output = self.host.output.get(instance_id, b"")
        begin = int(mark or 0)
        lost = begin > len(output)
        begin = 0 if lost else begin
        content = output[begin : begin + limit]
        end = begin + len(content)
        pieces = ((None, content),) if content else ()
        return Output(pieces, str(end), lost=lost, more=end < len(output))

    def _ended(self, run: _Run) -> float | None:
        """Return when the run ended, or None while it runs."""
        return run.ends if run.ends is not None and run.ends <= self._clock.monotonic() else None

    def _view(self, run: _Run) -> InstanceView:
        ended = None if run.lost else self._ended(run)
        limits = run.spec.limits
        asked = (("memory", limits.memory_bytes), ("cpu", limits.cpus))
        state: Literal["running", "stopping", "exited", "lost"] = "stopping" if run.stopping else "running"
        if run.lost or ended is not None:
            state = "lost" if run.lost else "exited"
        return InstanceView(
            id=run.spec.id,
            state=state,
            pid=run.pid if state in ("running", "stopping") else 0,
            started_at=run.started_at,
            ended_at=None if ended is None else run.started_at + timedelta(seconds=ended - run.started),
            exit_code=None if ended is None else run.exit_code,
            labels=run.spec.labels,
            limits={name: "fake" for name, value in asked if value > 0},
        )


class FakeProber:
    """A Prober whose answers a test states by port and path; the path of a TCP probe is empty.

    What was not stated answers "connection refused". `asked` lists the probes in order.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[int, str], str | None] = {}
        self.asked: list[tuple[str, int, str]] = []

    def answer(self, port: int, path: str, why: str | None) -> None:
        """State the answer: None passes, a text is why not."""
        self._answers[port, path] = why

    async def http(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """See `Prober.http`; takes no time."""
        self.asked.append((host, port, path))
        return self._answers.get((port, path), "connection refused")

    async def post(self, host: str, port: int, path: str, *, timeout_s: float) -> str | None:
        """See `Prober.post`; takes no time."""
        self.asked.append((host, port, f"POST {path}"))
        return self._answers.get((port, f"POST {path}"), "connection refused")

    async def tcp(self, host: str, port: int, *, timeout_s: float) -> str | None:
        """See `Prober.tcp`; takes no time."""
        self.asked.append((host, port, ""))
        return self._answers.get((port, ""), "connection refused")


class FakeMetrics:
    """Metrics as a test states them, by port; who has none is not reachable."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.asked = 0

    async def fetch(self, host: str, port: int, path: str, *, timeout_s: float, max_bytes: int) -> bytes:
        """See `MetricsSource.fetch`."""
        self.asked += 1
        page = self.pages.get(port)
        if page is None:
            raise Unavailable("metrics.unreachable", "connection refused")
        if len(page) > max_bytes:
            raise Rejected("metrics.too_large", f"more than {max_bytes} bytes of metrics")
        return page
