"""What an engine says of our containers, read into views.

Rules:
- Only containers with our owner's label and a name of ours count.
- A container that was made and never started is no instance; of several for one instance the best one is it.
- An engine may believe in a process that is dead (Podman, when conmon died with it): where processes of the
  host can be seen, they decide.
"""

from __future__ import annotations

import re
import signal as signals
import socket
import struct
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.adapters.docker_names import (
    INSTANCE_LABEL,
    LABELS_LABEL,
    LIMITS_LABEL,
    NETWORK_LABEL,
    NEW,
    OWNER_LABEL,
    StopMark,
    container_name,
    is_name_of,
    read_mark,
    run_of,
)
from skerry.adapters.engine_api import NOTHING, EngineApi, label_filter, part
from skerry.kit.canonical import UNREADABLE
from skerry.kit.errors import Unavailable
from skerry.ports.runtime import InstanceView

_ALIVE = ("running", "stopping", "paused", "restarting", "removing")
# Docker's code for a container whose end nobody saw.
_DOCKER_UNSEEN = 255
_LOG_DEFAULT_BYTES = 1 << 20
_NOTICE_LIMIT_S = 2.0
_NOTICE_PAUSE_S = 0.05

LIST_AGAIN = 5
GONE_MEANWHILE = "container not known"


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One container of ours as the engine describes it, and what it means.

    `is_fresh` says that it was never started.
    """

    container: str
    name: str
    status: str
    network: str
    run: str
    is_fresh: bool
    is_new: bool
    mark: StopMark | None
    stop_signal: str
    log_bytes: int
    view: InstanceView

    @property
    def is_alive(self) -> bool:
        return self.view.state in ("running", "stopping")


class EngineLook:
    """Reads the containers of one owner. Any thread may use it."""

    def __init__(self, api: EngineApi, owner: str) -> None:
        self._api = api
        self._owner = owner
        self._sees_processes: bool | None = None
        # By run: the limits that were found kept, so that the kernel is asked once.
        self._kept: dict[str, Mapping[str, str]] = {}
        # Runs that have ended without the engine's knowledge.
        self._unnoticed: set[str] = set()

    def all(self, instance_id: str = "") -> dict[str, list[Sighting]]:
        """Return the containers by instance, the best one first; only those of one instance if it is named.

        Raises:
            Unavailable: the engine does not answer.
        """
        labels = [f"{OWNER_LABEL}={self._owner}"]
        if instance_id:
            labels.append(f"{INSTANCE_LABEL}={instance_id}")
        query = {"all": "1", "filters": label_filter(*labels)}
        answer = self._api.call("GET", "/containers/json", query=query)
        for _ in range(LIST_AGAIN):
            # Podman fails the whole list when a container of it is removed at that moment.
            if answer.is_good or GONE_MEANWHILE not in answer.message:
                break
            answer = self._api.call("GET", "/containers/json", query=query)
        if not answer.is_good:
            raise Unavailable("runtime.engine_failed", f"cannot list containers: {answer.message}")
        found: dict[str, list[Sighting]] = {}
        for listed in answer.json() or ():
            sighting = self.one(str(listed["Id"]))
            if sighting is not None:
                found.setdefault(sighting.view.id, []).append(sighting)
        for sightings in found.values():
            sightings.sort(key=_rank, reverse=True)
        if not instance_id:
            runs = {sighting.run for sightings in found.values() for sighting in sightings}
            self._kept = {run: kept for run, kept in self._kept.items() if run in runs}
            self._unnoticed &= runs
        return found

    def best(self, instance_id: str) -> Sighting | None:
        """Return the container that is the instance, or None when there is none."""
        sightings = self.all(instance_id).get(instance_id, [])
        return sightings[0] if sightings and not sightings[0].is_fresh else None

    def one(self, container: str) -> Sighting | None:
        """Return one container; None when it is gone or not ours."""
        answer = self._api.call("GET", f"/containers/{part(container)}/json")
        # Podman says 500 of one that goes while it looks.
        if answer.status == 404 or "no such container" in answer.message:
            return None
        if not answer.is_good:
            raise Unavailable("runtime.engine_failed", f"cannot inspect a container: {answer.message}")
        said = answer.json()
        sighting = self._read(said)
        if sighting is None or sighting.status not in _ALIVE or sighting.view.state != "lost":
            return sighting
        return self._again(sighting)

    def _again(self, before: Sighting) -> Sighting | None:
        """Look until the engine has noticed the end of a process, but only so long, and once for each run."""
        limit = time.monotonic() + _NOTICE_LIMIT_S
        while before.run not in self._unnoticed:
            answer = self._api.call("GET", f"/containers/{part(before.container)}/json")
            sighting = self._read(answer.json()) if answer.is_good else None
            if sighting is None or sighting.run != before.run or sighting.status not in _ALIVE:
                return sighting
            if time.monotonic() > limit:
                self._unnoticed.add(before.run)
                return sighting
            time.sleep(_NOTICE_PAUSE_S)
        return before

    def _read(self, said: Any) -> Sighting | None:
        labels: Mapping[str, str] = said["Config"].get("Labels") or NOTHING
        name = str(said["Name"]).lstrip("/")
        instance_id = str(labels.get(INSTANCE_LABEL, ""))
        plain = container_name(self._owner, instance_id)
        if labels.get(OWNER_LABEL) != self._owner or not is_name_of(name, plain):
            return None
        state = said["State"]
        started = str(state.get("StartedAt", ""))
        run = run_of(str(said["Id"]), started)
        mark = read_mark(name, plain)
        asked = str(labels.get(LIMITS_LABEL, "")).split()
        status = str(state.get("Status", ""))
        return Sighting(
            container=str(said["Id"]),
            name=name,
            status=status,
            network=str(labels.get(NETWORK_LABEL, "")),
            run=run,
            is_fresh=status == "initialized"
            or (status in ("created", "configured") and not _instant(started)),
            is_new=name.endswith(NEW),
            mark=mark if mark is not None and mark.run == run else None,
            stop_signal=_signal_name(str(said["Config"].get("StopSignal") or "SIGTERM")),
            log_bytes=next((int(word[4:]) for word in asked if re.fullmatch(r"log=\d+", word)), 0)
            or _LOG_DEFAULT_BYTES,
            view=self._view(said, instance_id, run, is_stopping=mark is not None and mark.run == run),
        )

    def _view(self, said: Any, instance_id: str, run: str, *, is_stopping: bool) -> InstanceView:
        state = said["State"]
        labels: Mapping[str, str] = said["Config"].get("Labels") or NOTHING
        status, pid = str(state.get("Status", "")), int(state.get("Pid") or 0)
        started, ended = _instant(str(state.get("StartedAt", ""))), _instant(str(state.get("FinishedAt", "")))
        asked = [word for word in str(labels.get(LIMITS_LABEL, "")).split() if "=" not in word]
        kind: Literal["running", "stopping", "exited", "lost"] = "exited"
        code = int(state.get("ExitCode") or 0)
        if status in _ALIVE:
            kind = "stopping" if is_stopping or status == "stopping" else "running"
            kind = "lost" if pid and self._is_dead(pid) else kind
        elif status in ("created", "configured") or code < 0:
            # A boot in between: Podman knows when it was started, and no end.
            kind = "lost"
        elif code == _DOCKER_UNSEEN and started is not None and started.timestamp() < _boot_time():
            kind = "lost"
        if started is not None and ended is not None and ended < started:
            # Podman notes the start a moment after it, and a short life may be over by then.
            ended = started
        is_over = kind in ("exited", "lost")
        kept = self._limits(said, asked, run, pid=0 if is_over else pid)
        if state.get("OOMKilled") and "memory" in kept:
            kept = {**kept, "memory": f"{kept['memory']} (killed at the limit)"}
        return InstanceView(
            id=instance_id,
            state=kind,
            pid=0 if is_over else pid,
            started_at=started,
            ended_at=ended if kind == "exited" else None,
            exit_code=_exit_code(code) if kind == "exited" else None,
            labels=_own_labels(str(labels.get(LABELS_LABEL, ""))),
            limits=kept,
        )

    def _limits(self, said: Any, asked: list[str], run: str, *, pid: int) -> Mapping[str, str]:
        if not asked:
            return {}
        known = self._kept.get(run)
        if known is not None:
            return known
        config = said["HostConfig"]
        values = {
            "memory": config.get("Memory"),
            "cpu": config.get("NanoCpus") or config.get("CpuQuota"),
            "pids": config.get("PidsLimit"),
        }
        kept = {name: "cgroup" if (values.get(name) or 0) > 0 else "none" for name in asked}
        if pid and self.sees_processes():
            kept = {name: kept[name] if is_limited(pid, name) else "none" for name in asked}
            self._kept[run] = kept
        return kept

    def sees_processes(self) -> bool:
        """Tell whether the engine's process numbers mean something here: not in a container of our own."""
        if self._sees_processes is None:
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                probe.settimeout(1.0)
                probe.connect(str(self._api.path))
                size = struct.calcsize("3i")
                found = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            except OSError:
                return False
            finally:
                probe.close()
            self._sees_processes = found[0] > 0
        return self._sees_processes

    def _is_dead(self, pid: int) -> bool:
        if not self.sees_processes():
            return False
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return True
        return fields[0] in (b"Z", b"X")


def is_limited(pid: int, what: str) -> bool:
    """Tell whether the kernel limits a process in its control group; True when that cannot be seen."""
    names = {
        "memory": ("memory.max", "memory", "memory.limit_in_bytes"),
        "cpu": ("cpu.max", "cpu", "cpu.cfs_quota_us"),
        "pids": ("pids.max", "pids", "pids.max"),
    }
    unified, controller, old = names[what]
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        places = {line.split(":", 2)[1]: line.split(":", 2)[2].lstrip("/") for line in lines}
        old_place = next((path for names_, path in places.items() if controller in names_.split(",")), None)
        if old_place is not None:
            file = Path("/sys/fs/cgroup", controller, old_place, old)
        else:
            file = Path("/sys/fs/cgroup", places[""], unified)
        word = file.read_text(encoding="ascii").split()[0]
    except (OSError, KeyError, IndexError, ValueError):
        return True
    # The old memory controller says "no limit" with the largest number of whole pages.
    return word not in ("max", "-1") and int(word) < 1 << 62


def _rank(sighting: Sighting) -> tuple[bool, bool, float]:
    started = sighting.view.started_at
    return (sighting.is_alive, not sighting.is_fresh, started.timestamp() if started else 0.0)


def _instant(text: str) -> datetime | None:
    if not text or text.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def _exit_code(code: int) -> int:
    """Return the code with signals as negative numbers; engines, like shells, add 128 to them."""
    return 128 - code if 128 < code <= 128 + 64 else code


def _own_labels(text: str) -> Mapping[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except UNREADABLE:
        return {}


def _signal_name(text: str) -> str:
    """Return a signal of an image by name; engines give numbers for some."""
    if text.isdigit():
        try:
            return signals.Signals(int(text)).name
        except ValueError:
            return ""
    return text if text.startswith("SIG") else f"SIG{text}"


def _boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
