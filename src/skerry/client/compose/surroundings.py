"""What a service has around it: ports, networks, volumes, memory as directories, devices, limits, its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from skerry.client.compose.draft import Draft, unique_name
from skerry.client.compose.measures import convert_size
from skerry.client.compose.nodes import Node
from skerry.client.compose.program import read_count

MAX_RANGE = 64
_known_ports = {
    80: "http", 443: "https", 554: "rtsp", 1883: "mqtt", 5432: "postgres", 6379: "redis", 8080: "http", 8883: "mqtts",
}  # fmt: skip
_published_re = re.compile(r"(?:(?:\[[0-9a-fA-F:.]*\]|[^:]*):)?(?:[0-9-]*:)?([0-9]+(?:-[0-9]+)?)")
_cdi_re = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9_.-]+=\S+")
_bind_hints = {
    "/var/run/docker.sock": "the engine's socket is never given to a component",
    "/run/docker.sock": "the engine's socket is never given to a component",
    "/etc/localtime": "set TZ in environment, as a site variable where sites differ",
    "/dev/shm": "set shm_size",  # noqa: S108 - a path in someone's container
}


# ── ports and networks ───────────────────────────────────────────────────────────────────────────────


def read_ports(node: Node, draft: Draft) -> None:
    """Add the container's ports; what they are published as is noted."""
    for item in node.items():
        if not item.is_mapping():
            _short_port(item, draft)
            continue
        keys = item.mapped("services.*.ports[]")
        protocol = keys["protocol"].text() if "protocol" in keys else "tcp"
        name = next((keys[key].text() for key in ("name", "app_protocol") if key in keys), "")
        if "target" not in keys:
            item.problem("has no target", "write the port of the container")
        elif (port := read_count(keys["target"], 1, 65535)) is not None:
            _add_port(item, draft, port, protocol, name)


def _short_port(node: Node, draft: Draft) -> None:
    text, _, protocol = node.text().partition("/")
    if not text:
        return
    match = _published_re.fullmatch(text)
    numbers = _range(match[1]) if match else []
    if not match or not numbers:
        node.problem(
            "cannot be read as ports", f"write HOST:CONTAINER, and at most {MAX_RANGE} ports in a range"
        )
        return
    for port in numbers:
        _add_port(node, draft, port, protocol or "tcp", "")
    if ":" in text:
        node.note("the published port is not mapped: ingress leads in from outside")


def read_expose(node: Node, draft: Draft) -> None:
    """Add ports that only other components use."""
    for item in node.items():
        text, _, protocol = item.text().partition("/")
        numbers = _range(text)
        if text and not numbers:
            item.problem("cannot be read as a port", "write a number from 1 to 65535")
        for port in numbers:
            _add_port(item, draft, port, protocol or "tcp", "")


def _range(text: str) -> list[int]:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if not match:
        return []
    first, last = int(match[1]), int(match[2] or match[1])
    return list(range(first, last + 1)) if 1 <= first <= last <= 65535 and last - first < MAX_RANGE else []


def _add_port(node: Node, draft: Draft, port: int, protocol: str, name: str) -> None:
    if protocol != "tcp":
        node.note(
            f"{port}/{protocol[:16]} is no port of the component: components reach it, nothing outside does"
        )
        return
    if any(known["port"] == port for known in draft.ports):
        return
    taken = [known["name"] for known in draft.ports]
    wanted = name or _known_ports.get(port, f"tcp-{port}")
    if not name and wanted in taken:
        wanted = f"tcp-{port}"
    draft.ports.append({"name": unique_name(wanted, taken, f"tcp-{port}"), "port": port})


def read_network(keys: dict[str, Node], draft: Draft) -> Iterator[str]:
    """Set `container.network`, and yield the names of the networks the service joins."""
    mode = keys["network_mode"].text() if "network_mode" in keys else ""
    if mode in ("host", "none"):
        draft.container["network"] = mode
        if mode == "host":
            keys["network_mode"].note("each site must allow it: host_network in its Site document")
    elif mode not in ("", "bridge", "default"):
        keys["network_mode"].problem("has no counterpart in an Application", "host, none, or leave it out")
    if "networks" not in keys:
        return
    if mode and not keys["networks"].is_nothing:
        keys["networks"].problem("stands beside network_mode", "write one of them")
    if keys["networks"].is_mapping():
        for name, node in keys["networks"].entries():
            if node.value is not None:
                node.mapped("services.*.networks.*")
            yield name
    else:
        for item in keys["networks"].items():
            yield item.text()


# ── volumes and memory ───────────────────────────────────────────────────────────────────────────────


def read_volumes(node: Node, draft: Draft) -> None:
    """Add named and anonymous volumes, and memory as directories; refuse bind mounts."""
    for item in node.items():
        if item.is_mapping():
            _long_volume(item, draft)
        elif text := item.text():
            source, colon, rest = text.partition(":")
            path, _, mode = rest.partition(":") if colon else (source, "", "")
            if not colon:
                source = ""
            for option in filter(None, mode.split(",")):
                if option not in ("rw", "z", "Z"):
                    item.note(f"{option[:16]} is not kept: the volume is new, empty and writable")
            _add_volume(item, draft, source, path)


def _long_volume(node: Node, draft: Draft) -> None:
    keys = node.mapped("services.*.volumes[]")
    kind = keys["type"].text() if "type" in keys else "volume"
    path = keys["target"].text() if "target" in keys else ""
    if not path:
        node.problem("has no target", "write the path in the container")
    elif kind == "tmpfs":
        inner = keys["tmpfs"].mapped("services.*.volumes[].tmpfs") if "tmpfs" in keys else {}
        _add_tmpfs(node, draft, path, inner["size"].text() if "size" in inner else "")
    elif kind in ("volume", "bind"):
        if "volume" in keys:
            keys["volume"].mapped("services.*.volumes[].volume")
        if "read_only" in keys and keys["read_only"].truth():
            keys["read_only"].note("it is not kept: the volume is new, empty and writable")
        source = keys["source"].text() if "source" in keys else ""
        _add_volume(node, draft, source if kind == "volume" else source or "./", path, bind=kind == "bind")
    else:
        node.problem(
            f"a mount of the kind {kind[:40]} has no counterpart in an Application", "use a named volume"
        )


def _add_volume(node: Node, draft: Draft, source: str, path: str, *, bind: bool = False) -> None:
    if bind or source.startswith((".", "/", "~", "$")):
        hint = _bind_hints.get(source) or (
            "name it under devices"
            if source.startswith("/dev/")
            else "put the files into the image, a model into a Model document, or use a named volume for data"
        )
        node.problem(f"a path of the host ({source[:200]}) cannot be mounted", hint)
        return
    name = unique_name(source or path, list(draft.volumes), "data")
    if source and name != source:
        node.note(f"the volume {source[:64]} is named {name}")
    draft.volumes[name] = {"name": name, "path": path}
    if source:
        draft.volume_nodes[source] = node


def read_tmpfs(node: Node, draft: Draft) -> None:
    """Add memory as directories, in the short form `PATH[:OPTIONS]`."""
    for item in node.items():
        path, _, options = item.text().partition(":")
        size = ""
        for option in filter(None, options.split(",")):
            name, _, value = option.partition("=")
            if name == "size":
                size = value
            elif name not in ("rw", "noexec", "nosuid", "nodev"):
                item.note(f"the option {name[:16]} is not set")
        if path:
            _add_tmpfs(item, draft, path, size)


def _add_tmpfs(node: Node, draft: Draft, path: str, size: str) -> None:
    mount = {"path": path}
    try:
        if size:
            mount["size"] = convert_size(size)
    except ValueError as error:
        node.problem(str(error), "write 64m")
    if not size:
        node.note(f"{path[:200]} holds 64MiB at most, since it says no size")
    draft.container.setdefault("tmpfs", []).append(mount)


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────


def read_devices(node: Node, draft: Draft) -> None:
    """Add devices by path or by name of the Container Device Interface."""
    for item in node.items():
        if item.is_mapping():
            keys = item.mapped("services.*.devices[]")
            source, target, rights = (
                keys[key].text() if key in keys else "" for key in ("source", "target", "permissions")
            )
        else:
            text = item.text()
            parts = [text] if _cdi_re.fullmatch(text) else text.split(":")
            source, target, rights = [*parts, "", ""][:3]
            if target and not target.startswith("/"):
                target, rights = "", target
        if target not in ("", source):
            item.problem(f"{source[:100]} would have another path in the container", "use the same path")
        elif source.startswith("/dev/") or _cdi_re.fullmatch(source):
            if rights not in ("", "rwm", "rw"):
                item.note(f"the permissions {rights[:8]} are not kept: the device can be read and written")
            _add_device(draft, source.removeprefix("/dev/").rpartition("=")[2], source)
        elif source:
            item.problem("not a device", "write a path below /dev, or VENDOR/CLASS=NAME")


def read_gpus(node: Node, draft: Draft, table: str) -> None:
    """Add reserved GPUs."""
    if isinstance(node.value, str) and node.text() == "all":
        _add_device(draft, "gpu", "nvidia.com/gpu=all")
        return
    for item in node.items():
        keys = item.mapped(table)
        wanted = [each.text() for each in keys["capabilities"].items()] if "capabilities" in keys else ["gpu"]
        driver = keys["driver"].text() if "driver" in keys else ""
        if "gpu" not in wanted or driver not in ("", "nvidia"):
            item.problem("has no counterpart in an Application", "capabilities [gpu], of the driver nvidia")
        elif "device_ids" in keys:
            for each in keys["device_ids"].items():
                _add_device(draft, f"gpu-{each.text()}", f"nvidia.com/gpu={each.text()}")
        elif "count" not in keys or keys["count"].text() == "all":
            _add_device(draft, "gpu", "nvidia.com/gpu=all")
        else:
            for _ in range(read_count(keys["count"], 1, 64) or 0):
                _add_device(draft, "gpu", "gpu")
            item.note("any GPU will do: say which in placement.requires.gpu")


def _add_device(draft: Draft, name: str, use: str) -> None:
    if use == "gpu" or all(device["use"] != use for device in draft.devices):
        taken = [device["name"] for device in draft.devices]
        draft.devices.append({"name": unique_name(name, taken, "device"), "use": use})


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────


def read_limits(keys: dict[str, Node], draft: Draft) -> None:
    """Set `resources` from the service's own limits and from those under `deploy`."""
    own = {"mem_limit": "memory", "cpus": "cpus", "pids_limit": "pids"}
    _set_limits({field: keys[key] for key, field in own.items() if key in keys}, draft.resources, draft)
    requests: dict[str, Any] = {}
    if "mem_reservation" in keys:
        draft.set_size(requests, "memory", keys["mem_reservation"])
    deploy = keys["deploy"].mapped("services.*.deploy") if "deploy" in keys else {}
    for node in (keys.get("scale"), deploy.get("replicas")):
        if node is not None and node.text() not in ("1", ""):
            node.problem(
                "has no counterpart in an Application", "a component runs once on each host it is placed on"
            )
    if "mode" in deploy and deploy["mode"].text() not in ("replicated", ""):
        deploy["mode"].problem(
            "has no counterpart in an Application", "write spec.placement of the Application"
        )
    table = "services.*.deploy.resources"
    resources = deploy["resources"].mapped(table) if "resources" in deploy else {}
    if "limits" in resources:
        _set_limits(resources["limits"].mapped(f"{table}.limits"), draft.resources, draft)
    if "reservations" in resources:
        reserved = resources["reservations"].mapped(f"{table}.reservations")
        if "devices" in reserved:
            read_gpus(reserved.pop("devices"), draft, f"{table}.reservations.devices[]")
        _set_limits(reserved, requests, draft)
    if requests:
        draft.resources["requests"] = requests


def _set_limits(keys: dict[str, Node], part: dict[str, Any], draft: Draft) -> None:
    if "memory" in keys:
        draft.set_size(part, "memory", keys["memory"])
    if "cpus" in keys and (text := keys["cpus"].text()):
        # 0 means no limit, as -1 does below.
        if not re.fullmatch(r"[0-9]{0,6}(\.[0-9]{1,9})?", text):
            keys["cpus"].problem("not a number of processors", "write 0.5 or 2")
        elif float(text) > 0:
            draft.set_once(part, "cpu", text if text[0] != "." else f"0{text}", keys["cpus"])
    if "pids" in keys and keys["pids"].text() not in ("-1", "0"):
        count = read_count(keys["pids"], 1, 1 << 22)
        if count is not None:
            draft.set_once(part, "pids", count, keys["pids"])


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────


def read_dependencies(node: Node) -> None:
    """Note what a service waits for; refuse what would have to end first."""
    if not node.is_mapping():
        names = ", ".join(filter(None, (item.text() for item in node.items())))
        if names:
            node.note(f"{names} is not waited for: components start together, and again until they are ready")
        return
    for name, inner in node.entries():
        keys = inner.mapped("services.*.depends_on.*")
        condition = keys["condition"].text() if "condition" in keys else "service_started"
        if condition == "service_completed_successfully":
            inner.problem(
                f"{name[:64]} would have to end first", "do its work in the entry point of this service"
            )
        elif condition in ("service_started", "service_healthy"):
            inner.note(
                f"{name[:64]} is not waited for: components start together, and again until they are ready"
            )
        else:
            inner.problem(f"unknown condition {condition[:40]}", "service_started or service_healthy")


def read_links(node: Node) -> None:
    """Refuse other names for neighbours; the neighbours' own names need no link."""
    for item in node.items():
        name, colon, alias = item.text().partition(":")
        if colon and alias != name:
            item.problem("an alias has no counterpart in an Application", f"use the name {name[:64]}")
