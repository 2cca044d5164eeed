"""The create call in Podman's own form, which alone takes devices by CDI name.

Podman's Docker-compatible create call looks for a file of a CDI name, and up to at least 4.9 passes over the
`DeviceRequests` in which Docker takes them. Its own call (libpod API 4.0.0, SpecGenerator) takes both kinds.

Rule: what comes out means the same as `docker_create.body_of`, field by field; only a spec that needs it
comes here.
"""

from __future__ import annotations

from typing import Any

from skerry.adapters.docker_create import is_cdi_name, labels_of, log_config, tmpfs_of
from skerry.adapters.docker_names import NETWORK_LABEL
from skerry.ports.runtime import ContainerSpec, Engine, InstanceSpec, Limits

CREATE_PATH = "/v4.0.0/libpod/containers/create"
_PERIOD_US = 100_000


def needs_libpod(container: ContainerSpec, engine: Engine) -> bool:
    """Tell whether a container can only be made by Podman's own call."""
    return engine.name == "podman" and any(is_cdi_name(device) for device in container.devices)


def libpod_body_of(
    spec: InstanceSpec, container: ContainerSpec, *, name: str, owner: str, engine: Engine
) -> dict[str, Any]:
    """Return the body of Podman's own create call."""
    labels = labels_of(spec, container, owner=owner)
    network = labels[NETWORK_LABEL]
    log = log_config(spec.limits, engine)
    body: dict[str, Any] = {
        "name": name,
        "image": container.image,
        "env": dict(spec.env),
        "labels": labels,
        "healthconfig": {"Test": ["NONE"]},
        "restart_policy": "no",
        "read_only_filesystem": container.read_only,
        "cap_drop": ["all"],
        "cap_add": [f"CAP_{capability}" for capability in container.capabilities],
        "no_new_privileges": True,
        "ipcns": {"nsmode": "private"},
        "shm_size": container.shm_bytes,
        "init": container.init,
        "image_volume_mode": "anonymous",
        "log_configuration": {"driver": log["Type"], "options": log["Config"]},
        "mounts": _mounts(container),
        "devices": [{"path": device} for device in container.devices],
        "resource_limits": _resources(spec.limits),
        "netns": {"nsmode": "bridge" if network else container.network},
    }
    if container.entrypoint is not None:
        body["entrypoint"] = list(container.entrypoint) or [""]
    if spec.command:
        body["command"] = list(spec.command)
    if container.user:
        body["user"] = container.user
    if container.directory:
        body["work_dir"] = container.directory
    if network:
        body["networks"] = {network: {"aliases": [container.alias] if container.alias else []}}
        if container.dns and "dns" in engine.can:
            body["dns_server"] = list(container.dns)
        body["portmappings"] = [
            {"host_ip": "127.0.0.1", "host_port": outer, "container_port": inner, "protocol": "tcp"}
            for inner, outer in container.ports.items()
        ]
    return body


def _mounts(container: ContainerSpec) -> list[dict[str, Any]]:
    binds = [
        {
            "type": "bind",
            "source": str(mount.source),
            "destination": mount.target,
            "options": ["rbind", "rprivate", "rw" if mount.writable else "ro"],
        }
        for mount in container.mounts
    ]
    memory = [
        {
            "type": "tmpfs",
            "source": "tmpfs",
            "destination": path,
            "options": ["rw", "exec", "nosuid", "nodev", "mode=1777", f"size={size}"],
        }
        for path, size in tmpfs_of(container).items()
    ]
    return [*binds, *memory]


def _resources(limits: Limits) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if limits.memory_bytes:
        kept["memory"] = {"limit": limits.memory_bytes, "swap": limits.memory_bytes}
    if limits.cpus:
        kept["cpu"] = {"quota": int(limits.cpus * _PERIOD_US), "period": _PERIOD_US}
    if limits.pids:
        kept["pids"] = {"limit": limits.pids}
    return kept
