"""What the gates of a rollout say of its waves, by what hosts have measured and told so far.

A wave is judged by what its members measured of the new release since it began, beside what they and sites that still
have the old release measured of that. Late figures count like early ones: each look judges all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from skerry.ports.hub_store import HubStore, RolloutRecord
from skerry.ports.metric_windows import HostWindow
from skerry.rollout.facts import Verdict
from skerry.rollout.gates import Exhibit, judge_gates
from skerry.rollout.samples import Measured
from skerry.spec.gates import GateSpec
from skerry.spec.rollout import RolloutSpec

LOOK_BACK = timedelta(days=1)
"""How much of the old release's time before a wave counts beside it."""


def judge_waves(store: HubStore, record: RolloutRecord, spec: RolloutSpec) -> Mapping[int, Verdict]:
    """Return the verdict on each wave that has begun and not passed; nothing for a rollout without gates. Blocking."""
    if not spec.gates:
        return {}
    verdicts: dict[int, Verdict] = {}
    for number, wave in enumerate(record.steering.waves):
        if wave.began_at is None or wave.passed_at is not None:
            continue
        members = [name for name, one in record.sites.items() if one.wave == number]
        before = sorted({one.previous for one in record.sites.values()} - {"", record.release})
        since = wave.began_at - LOOK_BACK
        windows = store.metric_windows(record.application, [record.release, *before], since=since)
        new = [
            one
            for one in windows
            if one.window.release == record.release and one.site in members and one.window.end > wave.began_at
        ]
        old = [one for one in windows if one.window.release in before]
        exhibits = [Exhibit(gate, _measured(gate, new), _measured(gate, old)) for gate in spec.gates]
        said = judge_gates(exhibits, among=len(record.steering.waves))
        verdicts[number] = Verdict("inconclusive" if said.outcome == "no_data" else said.outcome, said.why)
    return verdicts


def _measured(gate: GateSpec, windows: Sequence[HostWindow]) -> tuple[Measured, ...]:
    return tuple(
        Measured(one.site, one.window.begin, one.window.end, one.window.value)
        for one in windows
        if one.window.metric == gate.metric and gate.component in (None, one.window.component)
    )
