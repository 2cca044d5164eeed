"""An agent without processes and network: the real reconcile loop, a link that a test fills, and virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.agent.authority import HostAuthority
from skerry.agent.binding_files import BindingFiles
from skerry.agent.binding_telling import BindingTelling
from skerry.agent.certificate_files import CertificateFolders
from skerry.agent.configurations import Configurations
from skerry.agent.fetcher import Fetcher, FetchParts
from skerry.agent.holding import Holds
from skerry.agent.host_gates import GatedTrial, HostGates
from skerry.agent.keys import KeyFiles
from skerry.agent.launching import Launcher, Site
from skerry.agent.live_configuration import LiveConfiguration
from skerry.agent.live_models import LiveModels
from skerry.agent.loops.metrics import MetricsLoop
from skerry.agent.loops.neighbours import NeighbourLoop
from skerry.agent.loops.probe import ProbeLoop
from skerry.agent.loops.reconcile import Parts, Reconciler
from skerry.agent.loops.sync import Syncer
from skerry.agent.measurements import Measurements
from skerry.agent.measuring import Measurer, MeasuringParts
from skerry.agent.metering import Metering
from skerry.agent.preparing import Preparer
from skerry.agent.releases import Releases
from skerry.agent.secret_files import SecretFiles
from skerry.agent.secret_telling import SecretTelling
from skerry.agent.self_testing import SelfTests, TestBench
from skerry.agent.services.bindings import BindingParts, HostBindings
from skerry.agent.services.certificates import CertificateParts, HostCertificates
from skerry.agent.services.configuration import HostConfiguration
from skerry.agent.services.host_service import HostServices
from skerry.agent.services.secrets import HostSecrets, SecretParts
from skerry.agent.site_ca import LocalCertificates
from skerry.agent.vault import Vault
from skerry.agent.volumes import Volumes
from skerry.agent.vouching import Vouching, VouchingParts
from skerry.carrier.limiting import Limiter
from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.kit.editions import edition_name
from skerry.kit.errors import SkerryError
from skerry.rollout.gates import GatesVerdict
from skerry.spec.application import Application, ApplicationSpec, Bundle, Component
from skerry.spec.carrier import SyncAnswer, SyncRequest
from skerry.spec.configuration import Configured
from skerry.spec.desired import Assignment, HealthPolicy, ReleaseRef, Upcoming
from skerry.spec.facts import Fact, HostFacts
from skerry.spec.image import Image, ImageVariant
from skerry.spec.metadata import Metadata
from skerry.spec.model import FileSpec
from skerry.spec.release import Release
from skerry.spec.report import Observed, Report
from skerry.testing.clock import SimulatedClock, settle
from skerry.testing.fake_runtime import FakeHost, FakeMetrics, FakeProber, FakeRuntime
from skerry.testing.memory import MemoryAgentStore
from skerry.testing.memory_devices import MemoryDevices
from skerry.testing.memory_lan import MemoryLan
from skerry.testing.signing import SignedRepository
from tests.unit.upstream import HUB, NOW, BlobLink, desired, identity

FACTS: HostFacts = {
    name: Fact(value=value, source="test")
    for name, value in (("arch", "x86_64"), ("engine", "podman"), ("memory_bytes", 8 << 30), ("cpu_count", 4))
}
APP = "reader"
_MOST_STEPS = 500


class Upstream(BlobLink):
    """A link with what a hub would hold; it remembers which blobs were asked for."""

    def __init__(self) -> None:
        super().__init__({})
        self.signed = SignedRepository(HUB, now=NOW)
        self.fetched: list[str] = []

    def blob(self, digest: str, **how: Any) -> Any:
        """Serve a blob and note it."""
        self.fetched.append(digest)
        return super().blob(digest, **how)

    def add(self, content: bytes, path: str) -> FileSpec:
        """Hold a blob."""
        digest = digest_of(content)
        self.contents[digest] = content
        return FileSpec(path=path, digest=digest, size_bytes=len(content))

    def release(
        self, version: str, content: bytes, *, layers: tuple[bytes, ...] = (), **image: Any
    ) -> ReleaseRef:
        """Hold a signed release of one bundle file, and of an image if it has layers; return how it is named."""
        bundle = Bundle(files=(self.add(content, "run"),))
        components = [Component(name="main", bundle=bundle, command=("./run",))]
        if layers:
            config = self.add(b"config of " + b"+".join(layers), "config.json")
            found = tuple(self.add(layer, f"{number}.tar") for number, layer in enumerate(layers))
            variant = ImageVariant(name="cpu", config=config, layers=found, **image)
            components.append(Component(name="box", image=Image(variants=(variant,))))
        spec = ApplicationSpec(version=version, components=tuple(components))
        release = Release(application=Application(metadata=Metadata(APP), spec=spec))
        document = encode_canonical(release)
        self.contents[digest_of(document)] = document
        self.signed.vouch(release)
        publisher = self.signed.publisher.name
        return ReleaseRef(digest=digest_of(document), size_bytes=len(document), publisher=publisher)


class Agent:
    """One host with its agent. What is in `data`, `store` and `host` outlives it."""

    def __init__(
        self,
        data: Path,
        link: Upstream,
        *,
        store: MemoryAgentStore | None = None,
        fetcher: type[Fetcher] = Fetcher,
    ) -> None:
        self.link = link
        self.clock = SimulatedClock(NOW)
        self.store = store or MemoryAgentStore()
        self.blobs = DirectoryBlobs(data / "blobs")
        self.configurations = Configurations(data / "configurations")
        self.releases = Releases(data / "releases", self.blobs, configurations=self.configurations)
        self.runtime = FakeRuntime(self.clock, FakeHost())
        self.identity = identity(link.signed, data / "metadata")
        self.syncer = Syncer(self.identity, self.store, link, self.clock)
        limiter = Limiter(self.store, self.clock, self.syncer.now)
        fetching = FetchParts(self.blobs, link, self.clock, self._token, data, limiter)
        self.fetcher, self._measuring = fetcher(fetching), Fetcher(fetching)
        self.metrics = FakeMetrics()
        self.prober = FakeProber()
        self.verdicts: list[tuple[str, str]] = []
        trust = self.identity.trust
        self.vouching = Vouching(
            VouchingParts(trust, self.store, link, self.clock, self.syncer.now, self._token)
        )
        parts = self._parts(data, limiter)
        self.loop = Reconciler(parts, host="edge", site="harbour", data=data)
        self._judging = asyncio.create_task(self.vouching.run_forever())
        self._probing = asyncio.create_task(parts.probes.run_forever())

    def _parts(self, data: Path, limiter: Limiter) -> Parts:
        prober = self.prober
        services = self._services(data)
        place = Site("edge", "harbour", dict, services.give)
        volumes = Volumes(data / "volumes", self.clock)
        live = LiveModels(data / "live", self.releases, self.store, self.runtime, prober)
        place, configured = self._configured(place, live, data)
        launcher = Launcher(place, self.store, self.releases, volumes, live)
        bench = TestBench(self.releases, launcher, self.runtime, self.clock)
        tests = SelfTests(self.releases, bench, self.store)
        measuring = MeasuringParts(
            blobs=self.blobs,
            fetcher=self._measuring,
            runtime=self.runtime,
            clock=self.clock,
            tests=tests,
            launcher_for=lambda other: Launcher(place, self.store, other, volumes, live),
        )
        return Parts(
            store=self.store,
            blobs=self.blobs,
            runtime=self.runtime,
            releases=self.releases,
            preparer=Preparer(self.releases, self.blobs, self.clock),
            launcher=launcher,
            live=live,
            tests=tests,
            measurer=Measurer(data / "measure", measuring),
            volumes=volumes,
            fetcher=self.fetcher,
            limiter=limiter,
            holds=Holds(data, self.syncer.now, self.syncer.note),
            probes=ProbeLoop(prober, self.runtime, self.clock),
            syncer=self.syncer,
            clock=self.clock,
            facts=lambda: FACTS,
            vouching=self.vouching,
            metering=self._metering(live),
            services=HostServices([services, configured]),
            neighbours=NeighbourLoop(self.identity, MemoryLan().machine("10.0.0.1"), self.store, self.clock),
        )

    def _services(self, data: Path) -> HostServices:
        self.telling = SecretTelling(self.store, self.runtime, self.prober, self.clock)
        self.telling.note = self.syncer.note
        self.keys = KeyFiles(data)
        files = SecretFiles(data / "memory")
        self.devices = MemoryDevices()
        self.bindings = self._joining(data, files)
        self.secrets = HostSecrets(
            SecretParts(
                host="edge",
                vault=Vault(data, self.keys),
                files=files,
                keys=self.keys,
                clock=self.clock,
                now=self.syncer.now,
                note=self.syncer.note,
                fact_of=self.releases.fact,
                telling=self.telling,
                joined=self.bindings.uses,
            )
        )
        self.certificates = self._certificates(data)
        return HostServices([self.bindings, self.secrets, self.certificates])

    def _certificates(self, data: Path) -> HostCertificates:
        now, note = self.syncer.now, self.syncer.note
        authority = HostAuthority(data, self.keys, host="edge", now=now, note=note)
        folders = CertificateFolders(data / "memory-certificates")
        telling = SecretTelling(self.store, self.runtime, self.prober, self.clock, what="certificate")
        telling.note = note
        parts = CertificateParts(
            site="harbour",
            authority=authority,
            local=LocalCertificates(authority, folders, self.clock, site="harbour", now=now),
            telling=telling,
            fact_of=self.releases.fact,
            note=note,
        )
        return HostCertificates(parts)

    def _configured(self, place: Site, live: LiveModels, data: Path) -> tuple[Site, HostConfiguration]:
        live.configuration = files = LiveConfiguration(data / "configured")
        service = HostConfiguration(
            "edge", self.configurations, files, fact_of=self.releases.fact, taken=lambda: live.taken
        )
        return msgspec.structs.replace(place, configuration=files), service

    def _joining(self, data: Path, files: SecretFiles) -> HostBindings:
        telling = BindingTelling(self.store, self.runtime, self.prober, self.clock)
        telling.note = self.syncer.note
        syncer = self.syncer
        return HostBindings(
            BindingParts(
                host="edge",
                offered=lambda: syncer.desired.bindings if syncer.desired else (),
                files=BindingFiles(data / "bindings"),
                secrets=files,
                devices=self.devices,
                clock=self.clock,
                now=syncer.now,
                note=syncer.note,
                fact_of=self.releases.fact,
                telling=telling,
            )
        )

    def _metering(self, live: LiveModels) -> Metering:
        measurements = Measurements(self.store, self.syncer.now)
        gates = HostGates(measurements, self.store, self.clock, now=self.syncer.now, note=self._note_verdict)
        loop = MetricsLoop(self.metrics, measurements, self.clock)
        return Metering(
            loop, gates, measurements=measurements, fact_of=self.releases.fact, live=live, host="edge"
        )

    def _note_verdict(self, trial: GatedTrial, verdict: GatesVerdict) -> None:
        self.verdicts.append((trial.release, verdict.outcome))

    async def desire(
        self,
        generation: int,
        assigned: dict[str, ReleaseRef],
        upcoming: dict[str, ReleaseRef] | None = None,
        *,
        urgent: bool = False,
        configured: Configured | None = None,
        **more: Any,
    ) -> None:
        """Let the hub say what the host shall run (by version), and what it will get later."""
        upcoming = upcoming or {}
        health = HealthPolicy(soak_s=1.0)
        digest = str(digest_of(encode_canonical(configured))) if configured is not None else None
        revision = configured.revision if configured is not None else ""
        given = tuple(
            Assignment(
                application=APP,
                release=edition_name(f"{APP}@{version}", revision),
                health=health,
                urgent=urgent,
                configuration=digest,
            )
            for version in assigned
        )
        if digest is not None and configured is not None:
            more["configurations"] = {digest: configured}
        ahead = tuple(Upcoming(application=APP, release=f"{APP}@{version}") for version in upcoming)
        envelope = desired(
            generation,
            hosts={"edge": given},
            releases={
                **{edition_name(f"{APP}@{version}", revision): ref for version, ref in assigned.items()},
                **{f"{APP}@{version}": ref for version, ref in upcoming.items()},
            },
            upcoming={"edge": ahead} if ahead else {},
            **more,
        )

        def answer(_: SyncRequest, newest: Report) -> SyncAnswer:
            return SyncAnswer(acknowledged=newest.sequence, desired=envelope)

        self.link.answer = answer
        await self.syncer.exchange(0.0)
        await self.judge()

    async def judge(self) -> None:
        """Find out at once which releases may be taken; the loop does so in the background."""
        self.vouching.follow(self.syncer.desired, "edge")
        with contextlib.suppress(SkerryError):
            await self.vouching.step()

    def _token(self, *, renew: bool = False) -> str:
        return self.link.token

    @property
    def observed(self) -> Observed:
        """What the agent says of itself."""
        return self.syncer._observed  # pyright: ignore[reportPrivateUsage]

    def ahead(self, version: str) -> str:
        """Return what is said of a release that is fetched ahead."""
        return self.observed.ahead.get(f"{APP}@{version}", "")

    def runs(self, version: str) -> bool:
        """Tell whether a release was taken for good."""
        view = self.observed.applications.get(APP)
        return view is not None and (view.release, view.candidate) == (f"{APP}@{version}", "")

    async def until(self, condition: Callable[[], bool], *, what: str = "it") -> None:
        """Reconcile, a second at a time, until something is so."""
        for _ in range(_MOST_STEPS):
            await self.loop.step()
            self.clock.advance(1.0)
            if condition():
                return
            await settle()
        raise AssertionError(f"{what} did not come true in {_MOST_STEPS} steps; observed: {self.observed}")

    async def steps(self, count: int = 5) -> None:
        """Reconcile so many times, a second apart, and let what that begins go on until it waits for something."""
        for _ in range(count):
            await self.loop.step()
            self.clock.advance(1.0)
            await settle()

    async def close(self) -> None:
        """End it."""
        self._judging.cancel()
        self._probing.cancel()
        await self.fetcher.close()
        await self._measuring.close()
        await self.telling.close()
        await self.certificates.close()
        await self.bindings.close()
        await self.loop.close()


@asynccontextmanager
async def agent(
    data: Path, link: Upstream, *, store: MemoryAgentStore | None = None, fetcher: type[Fetcher] = Fetcher
) -> AsyncGenerator[Agent]:
    """Run an agent on a directory."""
    made = Agent(data, link, store=store, fetcher=fetcher)
    try:
        yield made
    finally:
        await made.close()
