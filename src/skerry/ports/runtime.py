"""Runtime: runs components on one host. An instance is one component of one release, named by a stable id.

Promises every adapter keeps (tests/contract/test_runtime.py):
- `start` with the same id twice leaves one running process; an id that has exited is started anew.
- What was started outlives the caller: a killed agent finds it again with `instances`.
- `stop` asks with the signal, then kills the whole process group after the grace; it returns at once.
- Output goes to a bounded log that is readable at any time, also after the end.
- Nothing is run through a shell, and the environment is exactly the one stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Upper limits; 0 is none."""

    memory_bytes: int = 0
    cpus: float = 0.0
    log_bytes: int = 1 << 20


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `labels` come back in `InstanceView`, so that the caller recognises its own."""

    id: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    directory: Path
    limits: Limits = Limits()
    labels: Mapping[str, str] = {}


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


class ExecResult(msgspec.Struct, frozen=True):
    """How a command ended beside an instance; 124 when it ran past its time, 127 when it is not there."""

    exit_code: int
    output: bytes


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
