"""From an InstanceSpec to the body of a create call, and from an engine's refusal to an error of ours.

Rules:
- What is not stated is confined: no capabilities, no new privileges, no restart by the engine.
- Everything is structured: nothing of a spec goes through a shell or into a list separated by colons.
- The same spec means the same on Podman and on Docker; where an engine cannot, it is refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from skerry.adapters.docker_names import (
    INSTANCE_LABEL,
    LABELS_LABEL,
    LIMITS_LABEL,
    NETWORK_LABEL,
    OWNER_LABEL,
    is_safe_id,
    network_name,
)
from skerry.kit.errors import Rejected, SkerryError, Unavailable
from skerry.ports.runtime import ContainerSpec, Engine, InstanceSpec, Limits

# Programs expect to write there, also when the rest is read-only. Podman would put unlimited ones there.
_SCRATCH = ("/tmp", "/run", "/var/tmp")  # noqa: S108 - paths in the container
_SCRATCH_BYTES = 64 << 20
_TMPFS = "rw,exec,nosuid,nodev,mode=1777"
# Podman empties a log that is full, Docker turns to a second file: so that about as much is kept.
_PODMAN_LOG_FACTOR = 4
_DOCKER_LOG_FACTOR = 2
_LOG_FLOOR_BYTES = 64 << 10
_LOG_DEFAULT_BYTES = 1 << 20
_cdi = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9._-]*=[A-Za-z0-9][A-Za-z0-9._:-]*")


def is_cdi_name(device: str) -> bool:
    """Tell whether a device is a name such as `nvidia.com/gpu=0` (Container Device Interface 0.3 and later)."""
    return bool(_cdi.fullmatch(device))


def check_spec(spec: InstanceSpec, engine: Engine) -> ContainerSpec:
    """Return the container's part of a spec if the engine can run it.

    Raises:
        Rejected: it cannot be run as stated (`runtime.cannot`, `runtime.*_missing`, `runtime.*_invalid`).
    """
    container = spec.container
    if container is None:
        raise Rejected("runtime.cannot", "a container engine runs images only", id=spec.id)
    if not is_safe_id(spec.id):
        raise Rejected("runtime.id_invalid", f"{spec.id[:80]!r} cannot name a container")
    words = [*spec.command, *(container.entrypoint or ()), container.user, container.directory]
    if any("\0" in word for word in (*words, *spec.env, *spec.env.values())):
        raise Rejected("runtime.command_invalid", "a zero byte in command or environment", id=spec.id)
    if any(not name or "=" in name for name in spec.env):
        raise Rejected("runtime.command_invalid", "a variable's name is empty or has `=` in it", id=spec.id)
    _check_mounts(container)
    _check_devices(container, engine)
    if container.network == "none" and container.ports:
        raise Rejected("runtime.cannot", "ports cannot be published without a network", id=spec.id)
    if container.network == "host" and any(inner != outer for inner, outer in container.ports.items()):
        raise Rejected("runtime.cannot", "with the host's network a port keeps its number", id=spec.id)
    if spec.limits.pids and "pids" not in engine.can:
        raise Rejected(
            "runtime.cannot", "this host's kernel cannot limit the number of processes", id=spec.id
        )
    return container


def _check_mounts(container: ContainerSpec) -> None:
    for mount in container.mounts:
        # Podman up to at least 4.9 writes mounts as one line of words separated by commas and reads it again.
        if set(f"{mount.source}{mount.target}") & set(',"\n\r\0'):
            raise Rejected(
                "runtime.mount_invalid", f"a mount's path has a comma or quote in it: {mount.target!r}"
            )
        if not mount.source.is_absolute() or not mount.target.startswith("/"):
            raise Rejected("runtime.mount_invalid", f"a mount's path is not absolute: {mount.target!r}")
        # Podman would make an empty directory in its place.
        if not mount.source.exists():
            raise Rejected(
                "runtime.mount_missing", f"there is no {mount.source} to mount", hint="make it first"
            )
    if any(not path.startswith("/") or ":" in path for path in container.tmpfs):
        raise Rejected("runtime.mount_invalid", "a tmpfs needs an absolute path without a colon")


def _check_devices(container: ContainerSpec, engine: Engine) -> None:
    for device in container.devices:
        if is_cdi_name(device):
            if "cdi" not in engine.can:
                raise Rejected(
                    "runtime.cannot",
                    f"{engine.name} {engine.version} takes no devices by CDI name: {device}",
                    hint="name the device's path below /dev, or use Podman 4.1, Docker 28 or newer",
                )
        elif not device.startswith("/dev/") or ":" in device or ".." in device:
            raise Rejected("runtime.device_invalid", f"{device!r} is neither below /dev nor a CDI name")
        elif not Path(device).exists():
            raise Rejected("runtime.device_missing", f"there is no {device} on this host")


def body_of(spec: InstanceSpec, container: ContainerSpec, *, owner: str, engine: Engine) -> dict[str, Any]:
    """Return the body of `POST /containers/create`."""
    body: dict[str, Any] = {
        "Image": container.image,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": labels_of(spec, container, owner=owner),
        # Probes are the agent's; Podman runs none without systemd, and Docker's would come twice.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec.limits, container, owner=owner, engine=engine),
    }
    if container.entrypoint is not None:
        # An empty word takes the image's own away, an empty list would leave it.
        body["Entrypoint"] = list(container.entrypoint) or [""]
    if spec.command:
        body["Cmd"] = list(spec.command)
    if container.user:
        body["User"] = container.user
    if container.directory:
        body["WorkingDir"] = container.directory
    if container.network not in ("none", "host"):
        name = network_name(owner, container.network)
        aliases = [container.alias] if container.alias else []
        body["NetworkingConfig"] = {"EndpointsConfig": {name: {"Aliases": aliases}}}
        body["ExposedPorts"] = {f"{port}/tcp": {} for port in container.ports}
    return body


def labels_of(spec: InstanceSpec, container: ContainerSpec, *, owner: str) -> dict[str, str]:
    """Return the labels of a container; all are always set, so that none of the image's counts."""
    limits = spec.limits
    asked = (("memory", limits.memory_bytes), ("cpu", limits.cpus), ("pids", limits.pids))
    named = container.network not in ("none", "host")
    return {
        OWNER_LABEL: owner,
        INSTANCE_LABEL: spec.id,
        NETWORK_LABEL: network_name(owner, container.network) if named else "",
        LIMITS_LABEL: " ".join([*(name for name, value in asked if value), f"log={limits.log_bytes}"]),
        LABELS_LABEL: msgspec.json.encode(spec.labels).decode(),
    }


def _host_config(limits: Limits, container: ContainerSpec, *, owner: str, engine: Engine) -> dict[str, Any]:
    named = container.network not in ("none", "host")
    config: dict[str, Any] = {
        "NetworkMode": network_name(owner, container.network) if named else container.network,
        "RestartPolicy": {"Name": "no"},
        "ReadonlyRootfs": container.read_only,
        "CapDrop": ["ALL"],
        "CapAdd": [f"CAP_{name}" for name in container.capabilities],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "ShmSize": container.shm_bytes,
        "Init": container.init,
        "LogConfig": log_config(limits, engine),
        "Tmpfs": {path: f"{_TMPFS},size={size}" for path, size in tmpfs_of(container).items()},
        "Mounts": [
            {
                "Type": "bind",
                "Source": str(mount.source),
                "Target": mount.target,
                "ReadOnly": not mount.writable,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for mount in container.mounts
        ],
        "Devices": [
            {"PathOnHost": device, "PathInContainer": device, "CgroupPermissions": "rw"}
            for device in container.devices
            if not is_cdi_name(device)
        ],
    }
    if limits.memory_bytes:
        # Swap equal to memory in this API means: none on top of it.
        config |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
    if limits.cpus:
        config["NanoCpus"] = int(limits.cpus * 1e9)
    if limits.pids:
        config["PidsLimit"] = limits.pids
    by_name = [device for device in container.devices if is_cdi_name(device)]
    if by_name:
        config["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": by_name}]
    # Elsewhere it would stand in the place of the engine's own, and components would not find each other.
    if named and container.dns and "dns" in engine.can:
        config["Dns"] = list(container.dns)
    if named:
        config["PortBindings"] = {
            f"{inner}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(outer)}]
            for inner, outer in container.ports.items()
        }
    return config


def hosts_of(container: ContainerSpec, gateway: str) -> list[str]:
    """Return what is added to a container's table of hosts: names of this one, at its address in the network."""
    return [f"{name}:{gateway}" for name in container.host_names] if gateway else []


def tmpfs_of(container: ContainerSpec) -> dict[str, int]:
    """Return the sizes of all tmpfs by path, with the small ones that a read-only container gets."""
    sizes = dict(container.tmpfs)
    if container.read_only:
        taken = {mount.target.rstrip("/") for mount in container.mounts} | set(sizes)
        sizes |= {path: _SCRATCH_BYTES for path in _SCRATCH if path not in taken}
    return sizes


def log_config(limits: Limits, engine: Engine) -> dict[str, Any]:
    """Return how the engine keeps the output, bounded."""
    size = log_file_bytes(limits.log_bytes, engine)
    if engine.name == "podman":
        return {"Type": "k8s-file", "Config": {"max-size": str(size)}}
    return {"Type": "json-file", "Config": {"max-size": str(size), "max-file": "2"}}


def log_file_bytes(log_bytes: int, engine: Engine) -> int:
    """Return the size of an engine's log file for what is to be kept."""
    factor = _PODMAN_LOG_FACTOR if engine.name == "podman" else _DOCKER_LOG_FACTOR
    return max(_LOG_FLOOR_BYTES, factor * (log_bytes or _LOG_DEFAULT_BYTES))


_REFUSALS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(words), f"runtime.{code}", meaning)
    for words, code, meaning in (
        ("exec format error", "not_executable", "the image or its command is for another architecture"),
        (
            "command that was not found|executable .*not found|[Nn]o command .*(provid|specifi)ed|exec: .*no such file",
            "command_missing",
            "the command is not in the image",
        ),
        ("exec: .*permission denied|OCI permission", "not_executable", "the command may not be executed"),
        ("unknown capability|invalid capability", "capability_unknown", "no such capability"),
        ("CDI device", "device_missing", "a device is not there"),
        ("unable to find (user|group)|no matching entries in", "user_unknown", "no such user in the image"),
        ("memory limit|[Mm]inimum memory|[Rr]ange of CPUs", "limit_impossible", "a limit cannot be kept"),
        ("init binary|catatonit|docker-init", "cannot", "the engine has no program to be the first process"),
    )
)
_FULL = re.compile(
    r"no space left on device|disk quota exceeded|cannot allocate memory|resource temporarily", re.I
)
_TAKEN = re.compile(r"address already in use|port is already allocated", re.I)


def failure_of(message: str, instance_id: str) -> SkerryError:
    """Return the error for what an engine said when it did not create or start a container."""
    if _FULL.search(message):
        return Unavailable("disk.full", f"the host has no room for {instance_id}: {message}", id=instance_id)
    if _TAKEN.search(message):
        return Unavailable(
            "runtime.port_taken", f"a port of {instance_id} is taken: {message}", id=instance_id
        )
    for pattern, code, meaning in _REFUSALS:
        if pattern.search(message):
            return Rejected(code, f"{meaning}: {message}", id=instance_id)
    return Unavailable("runtime.engine_failed", f"cannot run {instance_id}: {message}", id=instance_id)
