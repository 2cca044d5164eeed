"""What a row of probe answers means.

Until `startup` has passed once, only it is asked; when it fails too often the component is given up. Then
`readiness` says whether it may serve, `liveness` whether it lives. A component without a probe of a kind counts
as well in that respect. Times are monotonic seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from skerry.kit.quantities import parse_duration
from skerry.spec.application import Probe, Probes

ProbeKind = Literal["startup", "readiness", "liveness"]
KINDS: tuple[ProbeKind, ...] = ("startup", "readiness", "liveness")


class ProbeState(msgspec.Struct, frozen=True):
    """Where one life of a component stands with its probes."""

    started: bool = False
    ready: bool = False
    dead: str = ""
    why: str = "not probed yet"
    failures: tuple[int, int, int] = (0, 0, 0)
    due: tuple[float, float, float] = (0.0, 0.0, 0.0)


def begin_probing(probes: Probes, now: float) -> ProbeState:
    """Return the state of a component that has just been started."""
    started = probes.startup is None
    ready = started and probes.readiness is None
    return ProbeState(
        started=started, ready=ready, why="" if ready else "not probed yet", due=(now, now, now)
    )


def due_probes(probes: Probes, state: ProbeState, now: float) -> list[tuple[ProbeKind, Probe]]:
    """Return the probes to ask now."""
    asked: list[tuple[ProbeKind, Probe]] = []
    for index, kind in enumerate(KINDS):
        probe = _probe(probes, kind)
        if probe is None or state.dead or state.due[index] > now:
            continue
        if (kind == "startup") != state.started:
            asked.append((kind, probe))
    return asked


def next_due(probes: Probes, state: ProbeState) -> float | None:
    """Return when the next probe is to be asked, or None when there is none."""
    times = [
        state.due[index]
        for index, kind in enumerate(KINDS)
        if _probe(probes, kind) is not None and not state.dead and (kind == "startup") != state.started
    ]
    return min(times, default=None)


def note_answer(
    probes: Probes, state: ProbeState, kind: ProbeKind, failure: str | None, now: float
) -> ProbeState:
    """Return the state after an answer; `failure` None is a pass."""
    probe = _probe(probes, kind)
    assert probe is not None
    index = KINDS.index(kind)
    failures = list(state.failures)
    failures[index] = 0 if failure is None else failures[index] + 1
    due = list(state.due)
    due[index] = now + parse_duration(probe.period)
    state = msgspec.structs.replace(
        state, failures=(failures[0], failures[1], failures[2]), due=(due[0], due[1], due[2])
    )
    given_up = failures[index] >= probe.failures
    if failure is None:
        return _passed(probes, state, kind, now)
    if kind == "readiness":
        return msgspec.structs.replace(state, ready=state.ready and not given_up, why=failure)
    if given_up:
        times = f"{failures[index]} times" if failures[index] > 1 else "once"
        return msgspec.structs.replace(state, ready=False, dead=f"{failure} ({times})", why=failure)
    return msgspec.structs.replace(state, why=failure if not state.ready else state.why)


def _passed(probes: Probes, state: ProbeState, kind: ProbeKind, now: float) -> ProbeState:
    if kind == "startup":
        ready = probes.readiness is None
        why = "" if ready else "started; readiness not probed yet"
        return msgspec.structs.replace(state, started=True, ready=ready, why=why, due=(now, now, now))
    if kind == "readiness":
        return msgspec.structs.replace(state, ready=True, why="")
    return state


def _probe(probes: Probes, kind: ProbeKind) -> Probe | None:
    match kind:
        case "startup":
            return probes.startup
        case "readiness":
            return probes.readiness
        case "liveness":
            return probes.liveness
