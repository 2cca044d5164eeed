"""Checks of what surrounds a component's process: container, volumes, devices and limits.

A component without an image is a process of the host, which nothing but limits confines: settings of a container
would promise what is not kept, so they are refused one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import msgspec

from skerry.kit.quantities import parse_cpu, parse_size
from skerry.spec.application import Component, Container
from skerry.spec.checks_files import check_unique, known_words
from skerry.spec.hardware import DeviceClass
from skerry.spec.problems import Problem

CAPABILITIES = (
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
    "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST",
    "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
    "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "WAKE_ALARM",
)  # fmt: skip
"""All of Linux 6, without CAP_: capabilities(7)."""

DEVICE_CLASSES: tuple[str, ...] = get_args(DeviceClass)

MIN_CONTAINER_BYTES = 6 << 20
"""Engines start no container with less: the limit of Docker's API."""


def check_process(path: str, component: Component) -> Iterator[Problem]:
    """Yield what a component without an image asks for, and only a container could give."""
    hint = "only containers have it: give the component an image, or leave it out"
    if component.args:
        yield Problem(
            f"{path}.args", "a process has no arguments beside its command", "write them into command"
        )
    default = Container()
    for field in msgspec.structs.fields(Container):
        if getattr(component.container, field.name) != getattr(default, field.name):
            yield Problem(f"{path}.container.{field.name}", "means nothing for a process of the host", hint)
    for index, volume in enumerate(component.volumes):
        if volume.path:
            message = "a process finds its volume where the host keeps it"
            where = f"{path}.volumes[{index}].path"
            yield Problem(where, message, f"leave it out, and use ${{volume.{volume.name}}}")
    for index, device in enumerate(component.devices):
        if "=" in device.use and not device.use.startswith("/"):
            message = f"{device.use} is a name of the Container Device Interface"
            yield Problem(f"{path}.devices[{index}].use", message, hint)


def check_container(path: str, component: Component) -> Iterator[Problem]:
    """Yield what is wrong with the container of a component's image."""
    container = component.container
    for index, capability in enumerate(container.capabilities):
        if capability not in CAPABILITIES:
            word = capability.removeprefix("CAP_")
            where = f"{path}.container.capabilities[{index}]"
            yield Problem(where, f"unknown capability {capability}", known_words(word, CAPABILITIES))
    yield from check_unique(f"{path}.container.capabilities", "capability", container.capabilities)
    if container.network == "none" and component.ports:
        message = "a container without a network cannot be reached at its ports"
        yield Problem(f"{path}.container.network", message, "leave out network: none, or the ports")
    paths = [(f"{path}.volumes[{index}].path", volume.path) for index, volume in enumerate(component.volumes)]
    for where, inner in paths:
        if not inner:
            yield Problem(where, "is missing", "say where the container finds the volume")
    temporary = [(f"{path}.container.tmpfs[{i}].path", tmpfs.path) for i, tmpfs in enumerate(container.tmpfs)]
    yield from _check_places([pair for pair in paths if pair[1]], temporary)


def check_devices(path: str, component: Component) -> Iterator[Problem]:
    """Yield devices of a class that nobody knows."""
    for index, device in enumerate(component.devices):
        if "/" not in device.use and device.use not in DEVICE_CLASSES:
            hint = f"{known_words(device.use, DEVICE_CLASSES)}; or a path such as /dev/video0"
            yield Problem(f"{path}.devices[{index}].use", f"unknown class of devices {device.use}", hint)


def check_limits(path: str, component: Component) -> Iterator[Problem]:
    """Yield limits that nothing can run within, and what contradicts them."""
    limits, requests = component.resources, component.resources.requests
    memory = None if limits.memory is None else parse_size(limits.memory)
    cpu = None if limits.cpu is None else parse_cpu(limits.cpu)
    where = f"{path}.resources"
    least = MIN_CONTAINER_BYTES if component.image else 1
    if memory is not None and memory < least:
        hint = "engines start no container with less than 6MiB" if component.image else "such as 64MiB"
        yield Problem(f"{where}.memory", f"nothing can run in {limits.memory}", hint)
    if cpu is not None and cpu <= 0:
        yield Problem(f"{where}.cpu", "must be more than 0", "such as 0.5 or 250m")
    if memory is not None and requests.memory is not None and parse_size(requests.memory) > memory:
        message = f"{requests.memory} are more than the limit of {limits.memory}"
        yield Problem(f"{where}.requests.memory", message, "request at most the limit")
    if cpu is not None and requests.cpu is not None and parse_cpu(requests.cpu) > cpu:
        message = f"{requests.cpu} is more than the limit of {limits.cpu}"
        yield Problem(f"{where}.requests.cpu", message, "request at most the limit")
    shared = component.container.shared_memory
    if memory is not None and shared != Container().shared_memory and parse_size(shared) > memory:
        message = f"{shared} are more than the component's {limits.memory} of memory"
        yield Problem(f"{path}.container.shared_memory", message, "shared memory counts as memory")
    sizes = [(f"{path}.volumes[{i}].size", volume.size) for i, volume in enumerate(component.volumes)]
    sizes += [(f"{path}.container.tmpfs[{i}].size", t.size) for i, t in enumerate(component.container.tmpfs)]
    sizes.append((f"{path}.container.shared_memory", shared))
    for place, size in sizes:
        if size is not None and parse_size(size) <= 0:
            yield Problem(place, "must be more than 0", "such as 64MiB")


def _check_places(volumes: list[tuple[str, str]], temporary: list[tuple[str, str]]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for where, text in (*volumes, *temporary):
        plain = "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
        if plain != text or ".." in text.split("/"):
            yield Problem(
                where, f"not a plain path: {text}", "write it without . and .., and no / at its end"
            )
        elif plain == "/":
            yield Problem(where, "would hide the whole image", "name a directory in the container")
        elif plain in seen:
            yield Problem(where, f"{text} is the place of two", f"the other is {seen[plain]}")
        seen.setdefault(plain, where)
    for where, text in volumes:
        for other_where, other in volumes:
            if where != other_where and text.startswith(f"{other.rstrip('/')}/") and other != "/":
                hint = "give each volume a directory of its own"
                yield Problem(where, f"{text} lies in another volume, {other}", hint)
