"""Puts together what a host offers its applications: one function for each service, and their order."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import msgspec

from skerry.adapters.device_nodes import DeviceNodes
from skerry.adapters.listening_ports import listening_ports
from skerry.adapters.memory_folder import find_memory_folder
from skerry.adapters.tls_bus_door import TlsBusDoor
from skerry.adapters.tls_bus_links import TlsBusLinks
from skerry.agent.authority import HostAuthority
from skerry.agent.binding_files import BindingFiles
from skerry.agent.binding_telling import BindingTelling
from skerry.agent.bus_line import BusLine
from skerry.agent.configurations import Configurations
from skerry.agent.host_runtime import HostRuntime
from skerry.agent.identity import Identity
from skerry.agent.keys import KeyFiles
from skerry.agent.live_configuration import LiveConfiguration
from skerry.agent.live_models import LiveModels
from skerry.agent.loops.neighbours import NeighbourLoop
from skerry.agent.loops.probe import ProbeLoop
from skerry.agent.loops.sync import Syncer
from skerry.agent.measurements import Measurements
from skerry.agent.releases import Releases
from skerry.agent.secret_files import SecretFiles
from skerry.agent.secret_telling import SecretTelling
from skerry.agent.services.bindings import BindingParts, HostBindings
from skerry.agent.services.bus import BusParts, HostBus, own_topics
from skerry.agent.services.bus_containers import ContainerParts, ContainerSide
from skerry.agent.services.bus_links import HostLinks, LinkParts
from skerry.agent.services.certificates import CertificateParts, HostCertificates
from skerry.agent.services.configuration import HostConfiguration
from skerry.agent.services.downlink import DownlinkParts, HostDownlink
from skerry.agent.services.host_service import HostService, HostServices
from skerry.agent.services.ingress import HostIngress, IngressParts
from skerry.agent.services.ingress_certificate import SERVER, ServerCertificate
from skerry.agent.services.secrets import HostSecrets, SecretParts
from skerry.agent.services.telemetry import Telemetry
from skerry.agent.services.uplink import HostUplink, UplinkParts
from skerry.agent.site_ca import LocalCertificates
from skerry.agent.vault import Vault
from skerry.agent.wiring.names import StatedNames, open_names
from skerry.agent.wiring.opening import (
    open_broker,
    open_bus_client,
    open_bus_files,
    open_certificate_folders,
    open_proxy,
    open_secret_files,
    open_topic_queue,
)
from skerry.ports.agent_store import AgentStore
from skerry.ports.clock import Clock
from skerry.ports.prober import Prober
from skerry.ports.proxy import ProxyPorts
from skerry.spec.pki import DEFAULT_DOMAIN


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What services stand on: the parts of the agent that are there before them."""

    data: Path
    identity: Identity
    store: AgentStore
    syncer: Syncer
    releases: Releases
    configurations: Configurations
    configuration: LiveConfiguration
    live: LiveModels
    keys: KeyFiles
    runtime: HostRuntime
    prober: Prober
    clock: Clock
    probes: ProbeLoop
    measurements: Measurements
    ingress: ProxyPorts
    names: StatedNames = StatedNames()


def open_services(
    ground: Ground, neighbours: NeighbourLoop, telemetry: Telemetry, *more: HostService
) -> HostServices:
    """Return the services of a host; one that uses another comes after it."""
    files = open_secret_files(ground.data)
    bindings = _bindings(ground, files)
    secrets, certificates = _secrets(ground, files, bindings), _certificates(ground)
    ingress = _ingress(ground, secrets, certificates.local)
    local = certificates.local
    names = open_names(
        ground.identity,
        ground.syncer,
        ground.clock,
        ground.names,
        neighbours=neighbours,
        ingress=(ingress, lambda: local.trust_domain or DEFAULT_DOMAIN),
    )
    configuration, bus = _configuration(ground), _bus(ground, local)
    line = _bus_line(ground, bus)
    messages = [_downlink(ground, bus, line), _uplink(ground, bus, line, telemetry)]
    own = [bindings, secrets, certificates, configuration, bus, ingress, names]
    return HostServices([*own, *messages, telemetry, *more])


def _certificates(ground: Ground) -> HostCertificates:
    syncer, place = ground.syncer, ground.identity.place
    telling = SecretTelling(ground.store, ground.runtime, ground.prober, ground.clock, what="certificate")
    telling.note = syncer.note
    authority = HostAuthority(ground.data, ground.keys, host=place.host, now=syncer.now, note=syncer.note)
    folders = open_certificate_folders(ground.data)
    parts = CertificateParts(
        site=place.site,
        authority=authority,
        local=LocalCertificates(authority, folders, ground.clock, site=place.site, now=syncer.now),
        telling=telling,
        fact_of=ground.releases.fact,
        note=syncer.note,
    )
    return HostCertificates(parts)


def _configuration(ground: Ground) -> HostConfiguration:
    live = ground.live
    return HostConfiguration(
        ground.identity.place.host,
        ground.configurations,
        ground.configuration,
        fact_of=ground.releases.fact,
        taken=lambda: live.taken,
    )


def default_ports(https: int = 0, http: int = 0) -> ProxyPorts:
    """Return the ports of the ingress; 0 is 443 and 80, or 8443 and 8080 where this process may not have those."""
    may = os.geteuid() == 0
    return ProxyPorts(https or (443 if may else 8443), http or (80 if may else 8080))


def _bindings(ground: Ground, secrets: SecretFiles) -> HostBindings:
    syncer = ground.syncer
    telling = BindingTelling(ground.store, ground.runtime, ground.prober, ground.clock)
    telling.note = syncer.note
    parts = BindingParts(
        host=ground.identity.place.host,
        offered=lambda: syncer.desired.bindings if syncer.desired else (),
        files=BindingFiles(ground.data / "bindings"),
        secrets=secrets,
        devices=DeviceNodes(),
        clock=ground.clock,
        now=syncer.now,
        note=syncer.note,
        fact_of=ground.releases.fact,
        telling=telling,
    )
    return HostBindings(parts)


def _secrets(ground: Ground, files: SecretFiles, bindings: HostBindings) -> HostSecrets:
    syncer = ground.syncer
    telling = SecretTelling(ground.store, ground.runtime, ground.prober, ground.clock)
    telling.note = syncer.note
    parts = SecretParts(
        host=ground.identity.place.host,
        vault=Vault(ground.data, ground.keys),
        files=files,
        keys=ground.keys,
        clock=ground.clock,
        now=syncer.now,
        note=syncer.note,
        fact_of=ground.releases.fact,
        telling=telling,
        joined=bindings.uses,
    )
    return HostSecrets(parts)


def _ingress(ground: Ground, secrets: HostSecrets, local: LocalCertificates) -> HostIngress:
    parts = IngressParts(
        host=ground.identity.place.host,
        site=ground.identity.place.site,
        proxy=open_proxy(ground.data),
        ports=ground.ingress,
        in_memory=find_memory_folder(ground.data, os.environ) is not None,
        clock=ground.clock,
        fact_of=ground.releases.fact,
        taken=lambda: ground.live.taken,
        probes=lambda: ground.probes.states,
        token=secrets.value_of,
        domain=lambda: local.trust_domain or DEFAULT_DOMAIN,
        certificate=ServerCertificate(local).get,
        lacking=lambda: local.why(SERVER),
        occupied=listening_ports,
        add=ground.measurements.add,
        note=ground.syncer.note,
    )
    return HostIngress(parts)


def _bus(ground: Ground, local: LocalCertificates) -> HostBus:
    boxed = ContainerParts(
        door=TlsBusDoor(), gateways=ground.runtime.gateways, local=local, clock=ground.clock
    )
    parts = BusParts(
        open=partial(open_broker, ground.data),
        files=open_bus_files(ground.data),
        store=ground.store,
        note=ground.syncer.note,
        fact_of=ground.releases.fact,
        containers=ContainerSide(boxed),
        links=_links(ground, local),
    )
    return HostBus(parts)


def _links(ground: Ground, local: LocalCertificates) -> HostLinks:
    place = ground.identity.place
    parts = LinkParts(
        host=place.host,
        site=place.site,
        door=TlsBusLinks(),
        client=open_bus_client,
        local=local,
        clock=ground.clock,
        note=ground.syncer.note,
    )
    return HostLinks(parts)


def _bus_line(ground: Ground, bus: HostBus) -> BusLine:
    return BusLine(
        open_bus_client,
        bus.own_place,
        lambda: ground.syncer.now().timestamp(),
        lambda: own_topics(bus.rights.values()).subscribe,
    )


def _downlink(ground: Ground, bus: HostBus, line: BusLine) -> HostDownlink:
    parts = DownlinkParts(
        line=line,
        rights=lambda: bus.rights,
        store=ground.store,
        clock=ground.clock,
        now=ground.syncer.now,
    )
    return HostDownlink(parts)


def _uplink(ground: Ground, bus: HostBus, line: BusLine, telemetry: Telemetry) -> HostUplink:
    syncer, path = ground.syncer, ground.data / "uplink.db"
    parts = UplinkParts(
        open=partial(open_topic_queue, path),
        exists=path.exists,
        line=line,
        rights=lambda: bus.rights,
        clock=ground.clock,
        now=lambda: syncer.now().timestamp(),
        tell=syncer.tell_batch,
        failing=lambda: syncer.failing,
        held=telemetry.holds_back,
    )
    return HostUplink(parts)
