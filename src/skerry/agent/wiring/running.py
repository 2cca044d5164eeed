"""Names the adapters of an agent and runs its loops."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.facts import override_facts
from skerry.adapters.lan_door import LanDoor
from skerry.adapters.lan_near import LanNear
from skerry.adapters.net_metrics import NetMetrics
from skerry.adapters.net_prober import NetProber
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.adapters.system_clock import SystemClock
from skerry.adapters.udp_datagrams import UdpDatagrams
from skerry.agent.carried import Carried, CarriedParts
from skerry.agent.configurations import Configurations
from skerry.agent.engine import EngineFinder
from skerry.agent.facts import FactsKeeper
from skerry.agent.fetcher import Fetcher, FetchParts
from skerry.agent.holding import Holds
from skerry.agent.host_gates import HostGates
from skerry.agent.host_runtime import HostRuntime
from skerry.agent.identity import Identity, load_identity
from skerry.agent.keys import KeyFiles, key_facts
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
from skerry.agent.own_log import OwnLog
from skerry.agent.preparing import Preparer
from skerry.agent.releases import Releases
from skerry.agent.rotating import KeyRotation
from skerry.agent.self_testing import SelfTests, TestBench
from skerry.agent.services.host_service import HostServices
from skerry.agent.services.telemetry import Telemetry
from skerry.agent.sharing import Sharing, SharingParts
from skerry.agent.sharing_door import DoorKeeper, DoorParts, parse_share
from skerry.agent.sharing_serving import Passes, Shelf
from skerry.agent.volumes import Volumes
from skerry.agent.vouching import Vouching, VouchingParts
from skerry.agent.ways_up import WayFollower
from skerry.agent.wiring.logs import open_logs
from skerry.agent.wiring.names import state_names
from skerry.agent.wiring.opening import (
    find_container_engine,
    lock_data,
    open_facts,
    open_guard,
    open_link,
    this_machine,
)
from skerry.agent.wiring.services import Ground, default_ports, open_services
from skerry.agent.wiring.telemetry import open_telemetry
from skerry.carrier.limiting import Limiter
from skerry.carrier.upstreams import Upstreams
from skerry.carrier.ways_up import NOTHING_STATED, StatedWay
from skerry.kit.structs import settle_structs
from skerry.ports.agent_store import AgentStore
from skerry.ports.blobs import LocalBlobs
from skerry.ports.discovery import Discovery
from skerry.trust.keys import SigningKey

_log = structlog.get_logger()


class Stated(msgspec.Struct, frozen=True):
    """What a person stated at the start.

    Facts by name; where heartbeats go (`host`, `host:port`, `:port`); whether and where blobs are shared with the
    site (`auto`, `off`, a port); whether neighbours are looked for by multicast; the ports of the ingress, 0 for the
    usual ones; where a DNS listens, and whom it asks for what is not of the site; whether routes are announced by
    multicast; and the way up.
    """

    facts: Mapping[str, str] = {}
    lan_address: str = ""
    share: str = "auto"
    discover: bool = False
    ingress_https: int = 0
    ingress_http: int = 0
    dns: tuple[str, ...] = ()
    dns_upstream: tuple[str, ...] = ()
    announce: bool = False
    way: StatedWay = NOTHING_STATED


class Told(msgspec.Struct, frozen=True):
    """What a process was started with: what a person stated, and where its own log is found."""

    stated: Stated
    own: OwnLog | None


def run_agent(data: Path, stated: Stated, own: OwnLog | None = None) -> None:
    """Run the agent of a data directory until SIGTERM or SIGINT. Applications outlive it. `own` is its own log.

    Raises:
        Missing: the host has not joined a site.
        Conflict: another agent runs on this directory (`agent.running`).
    """
    settle_structs()
    with lock_data(data):
        identity = load_identity(data, open_guard())
        override_facts({}, stated.facts)  # refuse what is wrong before anything runs
        state_names(stated.dns, stated.dns_upstream, announce=stated.announce)
        asyncio.run(_run(data, identity, stated, own))


async def _run(data: Path, identity: Identity, stated: Stated, own: OwnLog | None) -> None:
    clock = SystemClock()
    store, fresh = SqliteAgentStore.open(data / "agent.db")
    link = open_link(data, identity, stated.way)
    syncer = Syncer(identity, store, link, clock, session=f"{this_machine()}-{secrets.token_hex(8)}")
    if fresh:
        syncer.note(
            "agent.database_lost", "the database was damaged and set aside; beginning with an empty one"
        )
    syncer.note("agent.started")
    syncer.upstreams = link.view
    host = _wire(data, identity, Told(stated, own), syncer, store, link)
    # Variants are chosen by facts: better late than by half of them.
    await host.engine.look()
    await host.parts.neighbours.settle()
    await host.parts.services.begin()
    await host.facts.refresh()
    await host.parts.vouching.begin()
    reconciler = Reconciler(host.parts, host=identity.place.host, site=identity.place.site, data=data)
    host.facts.on_change = reconciler.wake
    follower = WayFollower(data, identity.trust_root, link, clock, fixed=stated.way != NOTHING_STATED)
    await _until_stopped(host, reconciler, link, follower, carried=_carried(data, identity, syncer))


class _Host(msgspec.Struct, frozen=True):
    """What runs on a host beside the reconcile loop, and what that works with."""

    parts: Parts
    facts: FactsKeeper
    engine: EngineFinder
    measuring: Fetcher
    rotation: KeyRotation


def _wire(
    data: Path, identity: Identity, told: Told, syncer: Syncer, store: AgentStore, link: Upstreams
) -> _Host:
    clock = SystemClock()
    blobs, volumes = DirectoryBlobs(data / "blobs"), Volumes(data / "volumes", clock)
    sharing, neighbours = _sharing(data, identity, told.stated, syncer, store, blobs)
    ground = _ground(data, identity, told.stated, syncer, store, blobs)
    runtime, releases, files, live = ground.runtime, ground.releases, ground.keys, ground.live
    host, limiter = identity.place.host, Limiter(store, clock, syncer.now)
    meters = open_telemetry(ground, limiter)
    services = open_services(ground, neighbours, *meters, open_logs(ground, limiter, told.own))
    place = _place(ground, host, services)
    launcher = Launcher(place, store, releases, volumes, live)
    tests = SelfTests(releases, TestBench(releases, launcher, runtime, clock), store)
    preparer = Preparer(releases, blobs, clock)
    engine = EngineFinder(lambda: find_container_engine(data), runtime, preparer, store, clock)
    facts = open_facts(
        data,
        told.stated.facts,
        extra=lambda: {
            **engine.facts(),
            **neighbours.facts(),
            **tests.measured(),
            **key_facts(files),
            **services.facts(),
        },
    )
    tests.on_change = facts.merge
    link.on_traffic = limiter.count
    fetching = FetchParts(blobs, link, clock, syncer.token, data, limiter, sharing)
    fetcher, measuring = Fetcher(fetching), Fetcher(fetching)

    def launcher_for(other: Releases) -> Launcher:
        return Launcher(place, store, other, volumes, live)

    parts = Parts(
        store=store,
        blobs=blobs,
        runtime=runtime,
        releases=releases,
        preparer=preparer,
        launcher=launcher,
        live=live,
        tests=tests,
        measurer=_measurer(ground, blobs, measuring, tests, launcher_for=launcher_for),
        volumes=volumes,
        fetcher=fetcher,
        limiter=limiter,
        holds=Holds(data, syncer.now, syncer.note),
        probes=ground.probes,
        syncer=syncer,
        clock=clock,
        facts=facts,
        neighbours=neighbours,
        vouching=Vouching(VouchingParts(identity.trust, store, link, clock, syncer.now, syncer.token)),
        metering=_metering(ground, store, meters[0], host=host),
        services=services,
    )
    return _Host(parts, facts, engine, measuring, _rotation(files, identity, parts, link))


def _place(ground: Ground, host: str, services: HostServices) -> Site:
    """Return what a component is told of where it runs."""
    syncer = ground.syncer
    site = ground.identity.place.site
    place = Site(host, site, lambda: syncer.desired.variables if syncer.desired else {}, services.give)
    return msgspec.structs.replace(place, configuration=ground.configuration)


def _ground(
    data: Path, identity: Identity, stated: Stated, syncer: Syncer, store: AgentStore, blobs: LocalBlobs
) -> Ground:
    kept, clock, prober = Configurations(data / "configurations"), SystemClock(), NetProber()
    releases = Releases(data / "releases", blobs, configurations=kept)
    runtime = HostRuntime(ProcessRuntime(data / "instances"))
    configuration = LiveConfiguration(data / "configured")
    live = LiveModels(data / "live", releases, store, runtime, prober)
    live.configuration = configuration
    return Ground(
        data=data,
        identity=identity,
        store=store,
        syncer=syncer,
        releases=releases,
        configurations=kept,
        configuration=configuration,
        live=live,
        keys=KeyFiles(data, open_guard()),
        runtime=runtime,
        prober=prober,
        clock=clock,
        probes=ProbeLoop(prober, runtime, clock),
        measurements=Measurements(store, syncer.now),
        ingress=default_ports(stated.ingress_https, stated.ingress_http),
        names=state_names(stated.dns, stated.dns_upstream, announce=stated.announce),
    )


def _measurer(
    ground: Ground,
    blobs: LocalBlobs,
    fetcher: Fetcher,
    tests: SelfTests,
    *,
    launcher_for: Callable[[Releases], Launcher],
) -> Measurer:
    parts = MeasuringParts(
        blobs=blobs,
        fetcher=fetcher,
        runtime=ground.runtime,
        clock=ground.clock,
        tests=tests,
        launcher_for=launcher_for,
    )
    return Measurer(ground.data / "measure", parts)


def _carried(data: Path, identity: Identity, syncer: Syncer) -> Carried:
    parts = CarriedParts(
        identity=identity,
        clock=SystemClock(),
        now=syncer.now,
        desired=lambda: syncer.desired,
        take=syncer.take_carried,
        reports=syncer.reports_to_carry,
        note=syncer.note,
    )
    return Carried(data, parts)


def _sharing(
    data: Path, identity: Identity, stated: Stated, syncer: Syncer, store: AgentStore, blobs: LocalBlobs
) -> tuple[Sharing, NeighbourLoop]:
    clock, host, port = SystemClock(), identity.place.host, parse_share(stated.share)

    def loop(doors: DoorKeeper | None) -> NeighbourLoop:
        return NeighbourLoop(identity, UdpDatagrams(), store, clock, stated=stated.lan_address, doors=doors)

    if port is None:
        return Sharing(host), loop(None)
    passes = Passes(host, identity.place.site, identity.key, syncer.now)
    sharing = Sharing(host, SharingParts(LanNear(), blobs, clock, passes.own))
    parts = DoorParts(
        sharing=sharing,
        passes=passes,
        door=LanDoor(data, host),
        served=Shelf(sharing, passes, blobs, clock),
        clock=clock,
        discovery=_discovery() if stated.discover else None,
    )
    return sharing, loop(DoorKeeper(parts, host=host, key=identity.key, port=port))


def _discovery() -> Discovery:
    from skerry.adapters.zeroconf_discovery import ZeroconfDiscovery

    return ZeroconfDiscovery()


def _metering(ground: Ground, store: AgentStore, telemetry: Telemetry, *, host: str) -> Metering:
    clock, syncer, measurements, fact_of = (
        ground.clock,
        ground.syncer,
        ground.measurements,
        ground.releases.fact,
    )
    gates = HostGates(
        measurements,
        store,
        clock,
        now=syncer.now,
        note=lambda trial, verdict: syncer.note(
            "release.judged",
            f"{trial.release}: {verdict.outcome}: {verdict.why}",
            application=trial.application,
        ),
    )
    loop = MetricsLoop(NetMetrics(), measurements, clock)
    loop.on_page = telemetry.page
    return Metering(loop, gates, measurements=measurements, fact_of=fact_of, live=ground.live, host=host)


def _rotation(files: KeyFiles, identity: Identity, parts: Parts, link: Upstreams) -> KeyRotation:
    def take_key(key: SigningKey) -> None:
        parts.syncer.take_key(key)
        parts.neighbours.take_key(key)

    return KeyRotation(
        files, identity.place, link, parts.clock, on_key=take_key, failing=lambda: parts.syncer.failing
    )


async def _until_stopped(
    host: _Host, reconciler: Reconciler, link: Upstreams, follower: WayFollower, *, carried: Carried
) -> None:
    parts = host.parts
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(loop_)
        for loop_ in (
            reconciler.run_forever(),
            parts.probes.run_forever(),
            parts.volumes.run_forever(),
            parts.neighbours.run_forever(),
            host.facts.run_forever(),
            host.engine.run_forever(),
            host.rotation.run_forever(),
            follower.run_forever(),
            carried.run_forever(),
            parts.runtime.watch(reconciler.wake),
            parts.syncer.poll_forever(),
            parts.vouching.run_forever(),
            parts.syncer.flush_forever(),
            parts.syncer.tell_metrics_forever(parts.metering.measurements),
            parts.metering.loop.run_forever(),
            parts.metering.gates.run_forever(),
            parts.services.run_forever(),
        )
    ]
    stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    link.close()
    await parts.fetcher.close()
    await host.measuring.close()
    for task in (*tasks, stopping):
        task.cancel()
    await reconciler.close()
    await asyncio.gather(*tasks, stopping, return_exceptions=True)
    await parts.metering.loop.close()
    parts.syncer.settle()
    await parts.services.close()
    parts.store.close()
    for task in done - {stopping}:
        # A loop never ends by itself: this is a bug, and the service manager starts us again.
        _log.critical("agent.loop_ended", exc_info=task.exception())
        sys.exit(70)
