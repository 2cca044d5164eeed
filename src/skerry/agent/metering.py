"""What of a host is measured and judged: follows what runs, what it serves, and which releases are on trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skerry.agent.host_gates import GatedTrial, HostGates
from skerry.agent.live_models import LiveModels, run_of
from skerry.agent.loops.metrics import Measured, MetricsLoop
from skerry.agent.measurements import Measurements
from skerry.kit.editions import release_in
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.spec.desired import DesiredState


class Metering:
    """Keeps the metrics loop and the gates at what the reconcile loop has before it."""

    def __init__(
        self,
        loop: MetricsLoop,
        gates: HostGates,
        *,
        measurements: Measurements,
        fact_of: Callable[[str], ReleaseFact | None],
        live: LiveModels,
        host: str,
    ) -> None:
        self.loop = loop
        self.measurements = measurements
        self.gates = gates
        self._fact_of = fact_of
        self._live = live
        self._host = host

    @property
    def failures(self) -> Mapping[str, str]:
        """Why releases on trial are worse than those before them, by digest."""
        return self.gates.failures

    def follow(
        self,
        desired: DesiredState | None,
        records: Mapping[str, ApplicationRecord],
        instances: Mapping[str, InstanceView],
    ) -> None:
        """Measure what runs now, and judge what is on trial now."""
        self.loop.follow(
            {key: one for key, view in instances.items() if (one := self._measured(view)) is not None}
        )
        self.gates.follow(self._trials(desired, records))

    def _measured(self, view: InstanceView) -> Measured | None:
        family = view.labels.get("family", "")
        # An instance that takes models while it runs serves the release whose models it took last.
        taken = self._live.taken.get(family, "") if family else ""
        fact = self._fact_of(taken or view.labels.get("release", ""))
        name = view.labels.get("component", "")
        component = next((c for c in fact.components if c.name == name), None) if fact else None
        if fact is None or component is None or component.metrics is None or view.state != "running":
            return None
        port = view.labels.get(f"port.{component.metrics.port}", "")
        if not port.isdigit():
            return None
        application = view.labels.get("application", "")
        return Measured(f"{run_of(view)}+{taken}", application, fact.name, name, int(port), component.metrics)

    def _trials(
        self, desired: DesiredState | None, records: Mapping[str, ApplicationRecord]
    ) -> dict[str, GatedTrial]:
        found: dict[str, GatedTrial] = {}
        for assignment in desired.hosts.get(self._host, ()) if desired else ():
            record = records.get(assignment.application)
            ref = desired.releases.get(assignment.release) if desired else None
            if (
                not assignment.gates
                or record is None
                or ref is None
                or release_in(record.candidate) != ref.digest
            ):
                continue
            if record.phase not in ("starting", "soaking"):
                continue
            good = self._fact_of(record.good) if record.good else None
            found[assignment.application] = GatedTrial(
                assignment.application,
                record.candidate,
                assignment.release,
                good.name if good else "",
                assignment.attempt,
                assignment.gates,
                assignment.judges,
            )
        return found
