"""The gates of a rollout on the host: a release on trial beside the one before it, with no hub.

Rules: a gate that fails refuses the trial; one that is not sure, or has nothing to go by, leaves the release to its
probes, and to the hub. Only what was measured since the trial was asked for counts, so that one who asks again gets
another verdict. The verdict is made in a thread, of what is stored on this host alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from skerry.agent.measurements import Measurements
from skerry.kit.errors import SkerryError, Unavailable, as_failure
from skerry.kit.instants import from_epoch
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.rollout.gates import Exhibit, GatesVerdict, judge_gates
from skerry.rollout.samples import Measured
from skerry.spec.gates import GateSpec
from skerry.spec.metrics import MetricWindow
from skerry.telemetry.keeping import window_at

_log = structlog.get_logger()

JUDGE_EVERY_S = 5.0
SINCE = "trials_since"


class GatedTrial(msgspec.Struct, frozen=True):
    """A release on trial, by digest and name; `before` is the name of the good one. See `Assignment` for the rest."""

    application: str
    digest: str
    release: str
    before: str
    attempt: int
    gates: tuple[GateSpec, ...]
    judges: int = 1


class _Since(msgspec.Struct, frozen=True):
    digest: str
    attempt: int
    second: int


class HostGates:
    """Judges trials; `failures` says, by digest, why a release is worse than the one before it."""

    def __init__(
        self,
        measurements: Measurements,
        store: AgentStore,
        clock: Clock,
        *,
        now: Callable[[], datetime],
        note: Callable[[GatedTrial, GatesVerdict], None],
    ) -> None:
        """`note` hears of a verdict when its outcome changes."""
        self._measurements = measurements
        self._store = store
        self._clock = clock
        self._now = now
        self._note = note
        self._trials: dict[str, GatedTrial] = {}
        self._verdicts: dict[GatedTrial, GatesVerdict] = {}
        self._since = msgspec.json.decode(store.load(SINCE) or b"{}", type=dict[str, _Since])
        self.on_change: Callable[[], None] = lambda: None

    @property
    def failures(self) -> dict[str, str]:
        """Why releases on trial are refused, by digest."""
        trials = set(self._trials.values())
        return {t.digest: v.why for t, v in self._verdicts.items() if t in trials and v.outcome == "fail"}

    def follow(self, trials: Mapping[str, GatedTrial]) -> None:
        """Judge these trials, by application, and no others."""
        self._trials = dict(trials)
        self._verdicts = {t: v for t, v in self._verdicts.items() if self._trials.get(t.application) == t}
        since = {
            name: known
            if (known := self._since.get(name)) and (known.digest, known.attempt) == (t.digest, t.attempt)
            else _Since(t.digest, t.attempt, window_at(self._now().timestamp()))
            for name, t in trials.items()
        }
        if since != self._since:
            self._since = since
            with contextlib.suppress(Unavailable):  # on a full disk a new agent counts from when it began
                self._store.save({SINCE: msgspec.json.encode(since)})

    async def run_forever(self) -> None:
        """Judge every few seconds while anything is on trial, for ever."""
        failing = ""
        while True:
            try:
                await self.step()
                failing = ""
            except Exception as caught:
                error = as_failure(caught)
                if failing != error.code:
                    _log.error("gates.failing", code=error.code, reason=str(error), exc_info=error.__cause__)
                failing = error.code
            await self._clock.sleep(JUDGE_EVERY_S)

    async def step(self) -> None:
        """Judge all trials once.

        Raises:
            SkerryError: what was measured cannot be read.
        """
        failure: SkerryError | None = None
        for trial in list(self._trials.values()):
            since = self._since[trial.application]
            try:
                verdict = await asyncio.to_thread(self._judge, trial, from_epoch(since.second))
            except Exception as caught:
                failure = failure or as_failure(caught)
                continue
            before = self._verdicts.get(trial)
            if self._trials.get(trial.application) != trial:
                continue  # it ended meanwhile
            self._verdicts[trial] = verdict
            if before is None or before.outcome != verdict.outcome:
                self._note(trial, verdict)
                self.on_change()
        if failure is not None:
            raise failure

    def _judge(self, trial: GatedTrial, since: datetime) -> GatesVerdict:
        windows = self._measurements.windows(trial.application, (trial.release, trial.before))
        return judge_trial(trial, windows, since)


def judge_trial(trial: GatedTrial, windows: Sequence[MetricWindow], since: datetime) -> GatesVerdict:
    """Return the verdict on a release, of what was measured on this host since its trial began and before it."""
    new = [one for one in windows if one.release == trial.release and one.end > since]
    old = [one for one in windows if one.release == trial.before != trial.release]
    exhibits = [_exhibit(gate, new, old) for gate in trial.gates]
    # Which of two ways a gate compares in depends on what was measured: each gets half of what it may be wrong by.
    return judge_gates(exhibits, among=trial.judges * 2)


def _exhibit(gate: GateSpec, new: Sequence[MetricWindow], old: Sequence[MetricWindow]) -> Exhibit:
    mine, before = ([one for one in some if _is_of(gate, one)] for some in (new, old))
    both = {(one.begin, one.end) for one in before}
    beside = sum((one.begin, one.end) in both for one in mine)
    if gate.compare == "site" and before and 2 * beside <= len(mine):
        # Where one ran after the other, as good as no window has both: each is a sample of its own then.
        gate = msgspec.structs.replace(gate, compare="cohort", bound=None)
    return Exhibit(gate, tuple(map(_measured, mine)), tuple(map(_measured, before)))


def _is_of(gate: GateSpec, window: MetricWindow) -> bool:
    return window.metric == gate.metric and gate.component in (None, window.component)


def _measured(window: MetricWindow) -> Measured:
    return Measured("here", window.begin, window.end, window.value)
