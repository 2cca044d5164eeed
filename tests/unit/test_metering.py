"""What is measured is what runs, under the release that it serves; what is judged is what is on trial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.host_gates import GatedTrial, HostGates
from skerry.agent.live_models import LiveModels
from skerry.agent.loops.metrics import Measured, MetricsLoop
from skerry.agent.measurements import Measurements
from skerry.agent.metering import Metering
from skerry.agent.releases import Releases
from skerry.ports.runtime import InstanceView
from skerry.reconcile.records import ApplicationRecord, ReleaseFact
from skerry.spec.application import Collected, Component, MetricsEndpoint
from skerry.spec.desired import Assignment, DesiredState, ReleaseRef
from skerry.spec.gates import GateSpec
from skerry.testing.clock import SimulatedClock
from skerry.testing.fake_runtime import FakeHost, FakeMetrics, FakeProber, FakeRuntime
from skerry.testing.memory import MemoryAgentStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = MetricsEndpoint(port="http", collect=(Collected(name="latency", histogram="seconds"),))
OLD, NEW = (f"sha256:{digit * 64}" for digit in "12")
GATE = GateSpec(metric="latency", kind="quantile", quantile=0.5, max_increase="10%")


class Loop(MetricsLoop):
    """A loop that only remembers what it is to follow."""

    followed: dict[str, Measured]

    def follow(self, instances: object) -> None:
        assert isinstance(instances, dict)
        self.followed = instances


class Gates(HostGates):
    """Gates that only remember what they are to follow."""

    trials: dict[str, GatedTrial]

    def follow(self, trials: object) -> None:
        assert isinstance(trials, dict)
        self.trials = trials


class Host:
    """A host that knows two releases; `taken` says of a family whose models it runs with."""

    def __init__(self, folder: Path, taken: dict[str, str] | None = None) -> None:
        clock, store = SimulatedClock(NOW), MemoryAgentStore()
        store.save({"taken": msgspec.json.encode(taken or {})})
        kept = Measurements(store, clock.now)
        self.loop = Loop(FakeMetrics(), kept, clock)
        self.gates = Gates(kept, store, clock, now=clock.now, note=lambda trial, verdict: None)
        releases = Releases(folder / "releases", DirectoryBlobs(folder / "blobs"))
        live = LiveModels(folder / "live", releases, store, FakeRuntime(clock, FakeHost()), FakeProber())
        main = (Component(name="main", command=("serve",), metrics=ENDPOINT), Component(name="dumb"))
        facts = {
            digest: ReleaseFact(name, digest, main) for digest, name in ((OLD, "reader@1"), (NEW, "reader@2"))
        }
        self.metering = Metering(
            self.loop, self.gates, measurements=kept, fact_of=facts.get, live=live, host="edge"
        )


def instance(component: str = "main", **labels: str) -> InstanceView:
    base = {"application": "reader", "component": component, "release": OLD, "port.http": "4711"}
    return InstanceView(id=f"reader.{component}", state="running", labels={**base, **labels})


def test_what_runs_and_tells_metrics_is_measured_under_its_release(tmp_path: Path) -> None:
    host = Host(tmp_path)
    ended = msgspec.structs.replace(instance(), state="exited")
    unknown = instance(release="sha256:" + "9" * 64)
    host.metering.follow(None, {}, {"a": instance(), "b": instance("dumb"), "c": ended, "d": unknown})
    (measured,) = host.loop.followed.values()
    assert (measured.application, measured.release, measured.component) == ("reader", "reader@1", "main")
    assert (measured.port, measured.endpoint) == (4711, ENDPOINT)


def test_an_instance_that_took_new_models_serves_their_release_and_begins_anew(tmp_path: Path) -> None:
    before, after = Host(tmp_path / "a"), Host(tmp_path / "b", {"kin": NEW})
    for host in (before, after):
        host.metering.follow(None, {}, {"a": instance(family="kin")})
    assert [host.loop.followed["a"].release for host in (before, after)] == ["reader@1", "reader@2"]
    assert before.loop.followed["a"].run != after.loop.followed["a"].run


def test_only_a_release_that_has_begun_its_trial_under_gates_is_judged(tmp_path: Path) -> None:
    host = Host(tmp_path)
    given = Assignment(application="reader", release="reader@2", attempt=3, gates=(GATE,), judges=8)
    desired = DesiredState(
        site="harbour",
        generation=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=1),
        hosts={"edge": (given,)},
        releases={"reader@2": ReleaseRef(digest=NEW, size_bytes=1)},
    )
    record = ApplicationRecord("reader", good=OLD, candidate=NEW, phase="soaking")
    host.metering.follow(desired, {"reader": record}, {})
    trial = GatedTrial("reader", NEW, "reader@2", "reader@1", 3, (GATE,), 8)
    assert host.gates.trials == {"reader": trial}
    ungated = msgspec.structs.replace(desired, hosts={"edge": (msgspec.structs.replace(given, gates=()),)})
    fetching = msgspec.structs.replace(record, phase="fetching")
    proven = ApplicationRecord("reader", good=NEW, previous=OLD)
    for state, known in ((desired, fetching), (desired, proven), (ungated, record), (None, record)):
        host.metering.follow(state, {"reader": known}, {})
        assert host.gates.trials == {}
