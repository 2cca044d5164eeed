"""Finds what can keep a component within its limits: a delegated cgroup v2, else RLIMIT_DATA.

Rules:
- Only a directory that was delegated to us is used: root could write anywhere in the tree, and must not.
- RLIMIT_DATA counts private writable memory of each process for itself (getrlimit(2)); nothing stands in
  for the CPU limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skerry.ports.runtime import Limits

CONTROLLERS = ("cpu", "memory")
PERIOD_US = 100_000


class Confinement(msgspec.Struct, frozen=True):
    """How limits are kept: the mechanism of each that was asked, and the cgroup, or an empty path."""

    mechanisms: Mapping[str, str]
    cgroup: str = ""


def find_cgroup_root() -> Path | None:
    """Return the directory delegated to this process with `cpu` and `memory` at hand, or None.

    Delegation is told by the mark systemd leaves (`Delegate=yes`), on our own cgroup or one above. Ours
    must be below it (`DelegateSubgroup=`), as a cgroup with processes has no controllers to give.
    """
    mount = _mount_point()
    own = _own_cgroup()
    if mount is None or own is None:
        return None
    place = mount / own.lstrip("/")
    for candidate in (place, *place.parents):
        if candidate == mount or not candidate.is_relative_to(mount):
            return None
        if _is_delegated(candidate):
            return candidate if enable_controllers(candidate) else None
    return None


def enable_controllers(root: Path) -> bool:
    """Pass the controllers on to the cgroups below `root`; False when one of them is not to be had."""
    control = root / "cgroup.subtree_control"
    try:
        missing = set(CONTROLLERS) - set(control.read_text(encoding="ascii").split())
        if missing:
            control.write_text(" ".join(f"+{name}" for name in sorted(missing)), encoding="ascii")
    except OSError:
        return False
    return True


def confine(root: Path | None, name: str, limits: Limits) -> Confinement:
    """Make a cgroup for the limits, as far as that works, and say what keeps each of them."""
    asked = [key for key, value in (("memory", limits.memory_bytes), ("cpu", limits.cpus)) if value > 0]
    mechanisms = dict.fromkeys(asked, "none")
    group = root / f"skerry-{name}" if root and asked else None
    if group is not None:
        release(str(group))
        if not _make(group):
            group = None
    if group is not None and "memory" in asked and _set(group / "memory.max", str(limits.memory_bytes)):
        mechanisms["memory"] = "cgroup2"
        # Without these a component over its limit swaps the host to a crawl, or loses a part of itself.
        _set(group / "memory.swap.max", "0")
        _set(group / "memory.oom.group", "1")
    quota = f"{max(1000, round(limits.cpus * PERIOD_US))} {PERIOD_US}"
    if group is not None and "cpu" in asked and _set(group / "cpu.max", quota):
        mechanisms["cpu"] = "cgroup2"
    if mechanisms.get("memory") == "none":
        mechanisms["memory"] = "rlimit_data"
    return Confinement(mechanisms, str(group or ""))


def release(cgroup: str) -> None:
    """Kill all that is in a component's cgroup and remove it; one that is not there is fine."""
    group = Path(cgroup)
    if cgroup and group.is_dir():
        _set(group / "cgroup.kill", "1")
        try:
            group.rmdir()
        except OSError:
            # Its last processes are still ending; it is empty and harmless, and used again at the next start.
            pass


def _make(group: Path) -> bool:
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return False
    return True


def _set(file: Path, value: str) -> bool:
    try:
        file.write_text(value, encoding="ascii")
    except OSError:
        return False
    return True


def _mount_point() -> Path | None:
    """Return where the unified hierarchy is mounted (proc_pid_mountinfo(5): type after ` - `)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        front, _, back = line.partition(" - ")
        if back.startswith("cgroup2 "):
            return Path(front.split()[4])
    return None


def _own_cgroup() -> str | None:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def _is_delegated(path: Path) -> bool:
    for attribute in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(path, attribute) == b"1":
                return True
        except OSError:
            continue  # systemd sets one or the other, older ones none
    return False
