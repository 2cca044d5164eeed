"""Brokers as the contract suites run them: in memory, nats-server and mosquitto, each with clients of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from skerry.adapters.broker_process import BrokerFolders, find_program
from skerry.adapters.mosquitto_broker import MosquittoBroker
from skerry.adapters.mqtt_client import MqttClient
from skerry.adapters.nats_broker import NatsBroker
from skerry.adapters.process_runtime import ProcessRuntime
from skerry.kit.errors import Unavailable
from skerry.ports.broker import (
    Broker,
    BrokerSettings,
    BusAccount,
    BusClient,
    BusMessage,
    BusPlace,
    BusTls,
)
from skerry.testing.memory_bus import MemoryBroker, MemoryBus
from skerry.testing.waiting import eventually
from skerry.trust.certificates import issue_server, make_ca

HERE = "127.0.0.1"
LINE = BusAccount(
    user="line", password="of-the-line", publish=("plant/line1/#",), subscribe=("plant/orders",)
)
RULES = BusAccount(
    user="rules", password="of-the-rules", publish=("plant/orders",), subscribe=("plant/line1/#",)
)


def _sockets_of(pid: int) -> int:
    return sum(_is_socket(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except OSError:
        return False


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def needs(kind: str) -> None:
    """Leave the test out where the broker's program is absent."""
    if kind != "memory":
        try:
            find_program("nats-server" if kind == "nats" else "mosquitto")
        except Unavailable as error:
            pytest.skip(str(error))


class Reader:
    """A client and what came to it."""

    def __init__(self, client: BusClient) -> None:
        self.client = client
        self.came: list[BusMessage] = []
        self.acknowledges = True

    def take(self, message: BusMessage) -> None:
        self.came.append(message)
        if self.acknowledges:
            self.client.taken(message)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.came]

    async def until(self, *payloads: bytes) -> None:
        """Wait until exactly these have come, in any order."""

        async def all_here() -> bool:
            return sorted(self.payloads) == sorted(payloads)

        await eventually(all_here, what=f"{payloads} (came: {self.payloads})")


class BusWorld:
    """One broker of a kind, whose process and data outlive the objects that speak to it."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind, self.root = kind, root
        self.memory_bus = MemoryBus()
        self.folder = Path(tempfile.mkdtemp(prefix="skerry-bus-", dir="/dev/shm"))
        self.settings = BrokerSettings(accounts=(LINE, RULES), listen=HERE, port=free_port())
        if kind == "nats":
            self.settings = msgspec.structs.replace(self.settings, native_port=free_port())
        self.broker = self.another()
        self.clients: list[BusClient] = []

    def another(self) -> Broker:
        """Return what a new agent would hold of the same broker."""
        if self.kind == "memory":
            return MemoryBroker(self.memory_bus)
        runtime = ProcessRuntime(self.root / "processes")
        folders = BrokerFolders(self.root / "data", self.folder / "bus")
        return (NatsBroker if self.kind == "nats" else MosquittoBroker)(runtime, folders)

    async def apply(self, *accounts: BusAccount) -> None:
        if accounts:
            self.settings = msgspec.structs.replace(self.settings, accounts=accounts)
        await self.broker.apply(self.settings)

    def open(self, account: BusAccount, *, client: str = "", durable: bool = False) -> Reader:
        made: BusClient = self.memory_bus.client() if self.kind == "memory" else MqttClient(limit_s=5)
        self.clients.append(made)
        reader = Reader(made)
        tls = self.settings.tls
        place = BusPlace(
            address=HERE,
            port=self.settings.port,
            user=account.user,
            password=account.password,
            client=client or f"{account.user}-{len(self.clients)}",
            authorities=tls.authorities if tls else None,
        )
        made.open(place, take=reader.take, durable=durable)
        return reader

    async def sockets(self) -> int:
        """Return how many sockets the broker's process has open."""
        return 0 if self.kind == "memory" else _sockets_of((await self.broker.state()).pid)

    async def until_left(self, before: int) -> None:
        """Wait until the broker has seen that a client is gone: what it sends until then is lost on the way."""

        async def gone() -> bool:
            return await self.sockets() <= before

        await eventually(gone, what="the end of a connection at the broker")

    async def kill(self) -> None:
        """End the broker's process as a crash would."""
        os.kill((await self.broker.state()).pid, signal.SIGKILL)

        async def gone() -> bool:
            return (await self.broker.state()).pid == 0

        await eventually(gone, what="the broker's end")

    async def close(self) -> None:
        for client in self.clients:
            client.close()
        await self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_tls(root: Path) -> BusTls:
    """Return files of a certificate for this address, of a CA of its own."""
    now = datetime.now(UTC)
    ca_key, ca = make_ca("test site", now)
    key, certificate = issue_server(ca_key, ca, [HERE], now)
    tls = BusTls(root / "bus.pem", root / "bus.key", root / "ca.pem", mark=str(hash(certificate)))
    tls.certificate.write_bytes(certificate)
    tls.key.write_bytes(key)
    tls.authorities.write_bytes(ca)
    return tls


def mosquitto_sub(
    settings: BrokerSettings, account: BusAccount, topic: str, *, limit_s: int = 20
) -> subprocess.CompletedProcess[str]:
    """Read one message with the independent client."""
    command = [
        "mosquitto_sub",
        "-h",
        HERE,
        "-p",
        str(settings.port),
        "-u",
        account.user,
        "-P",
        account.password,
    ]
    if settings.tls is not None:
        command += ["--cafile", str(settings.tls.authorities)]
    command += ["-t", topic, "-v", "-q", "1", "-C", "1", "-W", str(limit_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
