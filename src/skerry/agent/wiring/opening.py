"""Opens what a data directory of an agent holds, and what its machine has."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from skerry.adapters.directory_blobs import DirectoryBlobs
from skerry.adapters.envoy_proxy import EnvoyProxy
from skerry.adapters.facts import HostDetector, override_facts, read_facts
from skerry.adapters.machine_mark import machine_mark
from skerry.adapters.memory_folder import find_memory_folder
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.adapters.sqlite_agent_store import SqliteAgentStore
from skerry.adapters.system_clock import SystemClock
from skerry.agent.certificate_files import CertificateFolders
from skerry.agent.engine import Found
from skerry.agent.facts import FactsKeeper
from skerry.agent.host_runtime import HostRuntime
from skerry.agent.identity import Identity
from skerry.agent.secret_files import SecretFiles
from skerry.agent.ways_up import load_way
from skerry.carrier.upstreams import Upstreams
from skerry.carrier.ways_up import NOTHING_STATED, StatedWay, open_upstreams
from skerry.kit.durable import write_file
from skerry.kit.errors import Conflict, Unavailable
from skerry.kit.locking import hold
from skerry.ports.agent_store import AgentStore
from skerry.ports.blobs import LocalBlobs
from skerry.ports.broker import Broker, BusClient
from skerry.ports.key_guard import KeyGuard
from skerry.ports.proxy import Proxy
from skerry.ports.topic_queue import TopicQueue
from skerry.spec.facts import HostFacts
from skerry.spec.topics import BrokerKind

TPM_DEVICE = Path("/dev/tpmrm0")


def open_guard() -> KeyGuard | None:
    """Return what keeps keys so that they can be used on this machine alone: its TPM if there is one."""
    if not (os.environ.get("TPM2TOOLS_TCTI") or TPM_DEVICE.exists()):
        return None
    from skerry.adapters.tpm_guard import TpmGuard

    return TpmGuard.find(os.environ, TPM_DEVICE)


def open_blobs(data: Path) -> LocalBlobs:
    """Return the blobs of a data directory, whether its agent runs or not."""
    return DirectoryBlobs(data / "blobs")


def open_store(data: Path) -> AgentStore:
    """Return what the agent of a data directory remembers; its lock must be held."""
    return SqliteAgentStore.open(data / "agent.db")[0]


def open_link(data: Path, identity: Identity, stated: StatedWay = NOTHING_STATED) -> Upstreams:
    """Return the link up, as the files of a data directory and what is stated say."""
    way = load_way(data, identity.place, stated)
    way.check()
    return open_upstreams(way, identity.trust_root, SystemClock())


def this_machine() -> str:
    """Return the mark that tells this machine from others, as `skerry describe host` may show it."""
    return machine_mark()


def open_runtime(data: Path) -> HostRuntime:
    """Return the runtime that holds this directory's instances, with the container engine if there is one.

    Raises:
        Unavailable: an engine was used here and does not answer now, so that not all instances can be seen
            (`engine.away`).
    """
    runtime = HostRuntime(ProcessRuntime(data / "instances"))
    found = find_container_engine(data)
    if found is not None:
        runtime.attach(found.runtime)
    elif (owner := data / "owner").exists():
        hint = f"start it; if it is gone for good, remove {owner}"
        raise Unavailable("engine.away", "the container engine of this host does not answer", hint=hint)
    return runtime


def open_secret_files(data: Path) -> SecretFiles:
    """Return the files in memory that applications find their secrets in."""
    return SecretFiles(find_memory_folder(data, os.environ), data / "vault" / "files-in")


def open_certificate_folders(data: Path) -> CertificateFolders:
    """Return the directories in memory that applications find their certificates in."""
    memory = find_memory_folder(data, os.environ)
    root = memory.with_name(f"{memory.name}-certificates") if memory is not None else None
    return CertificateFolders(root, data / "vault" / "certificates-in")


def open_proxy(data: Path) -> Proxy:
    """Return the proxy of this host's routes, whether it runs or not."""
    memory = find_memory_folder(data, os.environ)
    # Not below the folder of secrets, which holds those of applications and nothing else.
    folder = memory.with_name(f"{memory.name}-ingress") if memory else data / "ingress" / "run"
    # Beside the host's applications, so that nobody takes it for one of them.
    runtime = ProcessRuntime(data / "ingress" / "instances")
    return EnvoyProxy(folder, runtime, SystemClock(), in_memory=memory is not None)


def open_bus_files(data: Path) -> SecretFiles:
    """Return the files in memory that applications find what opens the message bus in."""
    return SecretFiles(_bus_memory(data, "bus"), data / "vault" / "bus-in")


def open_broker(data: Path, kind: BrokerKind) -> Broker:
    """Return the message broker of a data directory; whichever kind runs there, its process is the one."""
    from skerry.adapters.broker_process import BrokerFolders
    from skerry.adapters.mosquitto_broker import MosquittoBroker
    from skerry.adapters.nats_broker import NatsBroker

    runtime = ProcessRuntime(data / "bus" / "processes")
    folders = BrokerFolders(data / "bus" / kind, _bus_memory(data, "broker"))
    return MosquittoBroker(runtime, folders) if kind == "mosquitto" else NatsBroker(runtime, folders)


def open_bus_client() -> BusClient:
    """Return a client of a broker that is not connected yet."""
    from skerry.adapters.mqtt_client import MqttClient

    return MqttClient()


def open_topic_queue(path: Path) -> TopicQueue:
    """Return the messages that are on their way up.

    Raises:
        Unavailable: it cannot be opened (`disk.full`, `database.*`).
    """
    from skerry.adapters.sqlite_topic_queue import SqliteTopicQueue

    return SqliteTopicQueue.open(path)


def _bus_memory(data: Path, what: str) -> Path | None:
    memory = find_memory_folder(data, os.environ)
    return memory.with_name(f"{memory.name}-{what}") if memory is not None else None


def find_container_engine(data: Path) -> Found | None:
    """Return the host's container engine if one answers now. Blocking.

    What it runs for us carries the owner's name that is kept in the data directory, so that several agents can
    share one engine.
    """
    from skerry.adapters.engine_api import find_engine

    socket = find_engine(os.environ)
    if socket is None:
        return None
    from skerry.adapters.docker_images import DockerImages
    from skerry.adapters.docker_runtime import DockerRuntime

    file = data / "owner"
    if not file.exists():
        write_file(file, secrets.token_hex(8).encode())
    owner = file.read_text(encoding="ascii")
    return Found(str(socket), DockerRuntime(socket, owner=owner), DockerImages(socket, owner=owner))


def open_facts(data: Path, overrides: Mapping[str, str], extra: Callable[[], HostFacts]) -> FactsKeeper:
    """Return what keeps the facts of this machine; `extra` are those of other parts of the agent."""
    detector = HostDetector(data=data)
    return FactsKeeper(
        detector.detect,
        detector.look,
        SystemClock(),
        extra=extra,
        overlay=lambda facts: override_facts(facts, overrides),
    )


def find_facts(data: Path, overrides: Mapping[str, str], root: Path = Path("/")) -> HostFacts:
    """Return the facts of this machine as the agent would find them now, with those that are stated."""
    return override_facts(read_facts(root, data=data), overrides)


def lock_data(data: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the data directory for this process alone."""
    hint = "one data directory, one agent"
    conflict = Conflict("agent.running", f"another agent runs on {data}", hint=hint)
    return hold(data / "agent.lock", conflict=conflict)
