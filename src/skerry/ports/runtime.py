"""Runtime: runs components on one host. An instance is one component of one release, named by a stable id.

Promises every adapter keeps (tests/contract/test_runtime.py):
- `start` with the same id twice leaves one running process; an id that has exited is started anew.
- What was started outlives the caller: a killed agent finds it again with `instances`.
- `stop` asks with the signal, then kills the whole process group after the grace; it returns at once.
- Output goes to a bounded log that is readable at any time, also after the end.
- Nothing is run through a shell, and the environment is exactly the one stated (in a container: on top of
  the image's own).
- A runtime that cannot do what a spec asks for rejects it (`runtime.cannot`), and names in `Engine.can` what it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Upper limits; 0 is none."""

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    log_bytes: int = 1 << 20


class Mount(msgspec.Struct, frozen=True):
    """A directory or file of the host, seen at `target` in the container."""

    source: Path
    target: str
    writable: bool = False


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is made and confined.

    `image` is the digest of its configuration. `entrypoint` None keeps the image's own; `directory` empty as
    well. `capabilities` are those kept, without the prefix CAP_. `tmpfs` maps paths to bytes. `devices` are
    paths below /dev or CDI names. `network` is the name of a network of ours that is made when it is not
    there, `host` or `none`; `alias` is the name by which others in it find this one. `ports` maps ports in
    the container to ports of the host's loopback address. In a network of ours `host_names` are names by which it finds
    this host, and `dns` the addresses asked for names that are none of it, in their order, where the engine can; else
    those of the host are.
    """

    image: str
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    directory: str = ""
    read_only: bool = True
    capabilities: tuple[str, ...] = ()
    tmpfs: Mapping[str, int] = {}
    shm_bytes: int = 64 << 20
    devices: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = "none"
    alias: str = ""
    dns: tuple[str, ...] = ()
    ports: Mapping[int, int] = {}
    host_names: tuple[str, ...] = ()
    init: bool = False


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `labels` come back in `InstanceView`, so that the caller recognises its own.

    Without `container` it is a process of the host, in `directory`. With it, `command` is the container's
    arguments, empty for those of the image, and `directory` means nothing. `secret_env` are variables whose values
    are read from files when it is started, and written nowhere; a container has none.
    """

    id: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    directory: Path
    limits: Limits = Limits()
    labels: Mapping[str, str] = {}
    container: ContainerSpec | None = None
    secret_env: Mapping[str, Path] = {}


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an instance.

    `lost` says that it ended without anybody seeing how (reboot, kill of its keeper); `exit_code` is then
    None. A negative `exit_code` is the signal that ended it. `limits` names the mechanism that keeps each
    limit, for example `{"memory": "cgroup2", "cpu": "none"}`.
    """

    id: str
    state: Literal["running", "stopping", "exited", "lost"]
    pid: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    labels: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What runs the instances: `podman`, `docker` or `process`, and what it can do.

    `dns`: containers that are told whom to ask for names find each other all the same.
    """

    name: str
    version: str = ""
    rootless: bool = False
    can: frozenset[Literal["processes", "containers", "networks", "devices", "cdi", "pids", "dns"]] = (
        frozenset()
    )


class ExecResult(msgspec.Struct, frozen=True):
    """How a command ended beside an instance; 124 when it ran past its time, 127 when it is not there."""

    exit_code: int
    output: bytes


class Output(msgspec.Struct, frozen=True):
    """What an instance wrote after a `mark`: pieces in order, each with when it was written where that is known.

    `mark` is where the next piece begins; `lost` says that some was given up before it could be read. `more` says that
    there is more to read at once.
    """

    pieces: tuple[tuple[datetime | None, bytes], ...]
    mark: str
    lost: bool = False
    more: bool = False


class Runtime(Protocol):
    """Starts, watches and ends instances."""

    async def start(self, spec: InstanceSpec) -> None:
        """Start an instance, or leave it be when it runs.

        Raises:
            Rejected: the command cannot be run (`runtime.command_missing`, `runtime.not_executable`).
            Unavailable: the host lacks room (disk full, no more processes).
        """
        ...

    async def stop(self, instance_id: str, *, signal: str, grace_s: float) -> None:
        """Ask an instance to end with a signal such as `SIGTERM`, and kill it after `grace_s`.

        Unknown or ended ids are fine.
        """
        ...

    async def signal(self, instance_id: str, signal: str) -> None:
        """Send a signal such as `SIGHUP` to an instance's own process, which goes on; unknown or ended ids are fine.

        Raises:
            Rejected: the signal is unknown (`runtime.signal_unknown`).
        """
        ...

    async def remove(self, instance_id: str) -> None:
        """Forget an ended instance and its log; a running one is killed first; unknown ids are fine."""
        ...

    async def instances(self) -> Mapping[str, InstanceView]:
        """Return all instances by id, also those that an earlier caller started."""
        ...

    async def execute(self, instance_id: str, command: tuple[str, ...], *, timeout_s: float) -> ExecResult:
        """Run a command in the instance's environment and directory; output is cut at 4 KiB."""
        ...

    async def logs(self, instance_id: str, *, tail_bytes: int) -> bytes:
        """Return the last bytes of the instance's output, oldest first; empty when there is none."""
        ...

    async def output(self, instance_id: str, *, mark: str, limit: int) -> Output:
        """Return about `limit` bytes of what the instance wrote after an earlier `mark`; an empty one is the beginning.

        Raises:
            Unavailable: what runs it does not answer.
        """
        ...

    async def engine(self) -> Engine:
        """Return what runs the instances.

        Raises:
            Unavailable: it does not answer.
        """
        ...

    async def gateways(self, networks: Sequence[str]) -> Mapping[str, str]:
        """Return this host's own address in each of these networks of containers, for those that are there.

        Raises:
            Unavailable: what runs the containers does not answer.
        """
        ...

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever an instance may have changed, until cancelled.

        A runtime that is not told of changes just waits; its callers look every now and then anyway.
        """
        ...
