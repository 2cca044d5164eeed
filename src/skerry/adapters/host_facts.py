"""Host facts, read from the kernel's files below a root directory, so that tests can show it another machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from skerry.kit.errors import Rejected
from skerry.kit.quantities import parse_size
from skerry.spec.facts import Fact, HostFacts

KNOWN = (
    "arch",
    "os",
    "os_version",
    "kernel",
    "hostname",
    "cpu_model",
    "cpu_count",
    "cpu_flags",
    "memory_bytes",
)


def read_facts(root: Path = Path("/")) -> HostFacts:
    """Return what this machine is; a fact that cannot be read is left out."""
    facts: HostFacts = {
        "arch": Fact(value=platform.machine(), source="uname"),
        "kernel": Fact(value=platform.release(), source="uname"),
        "hostname": Fact(value=platform.node(), source="uname"),
        "cpu_count": Fact(value=len(os.sched_getaffinity(0)), source="sched_getaffinity"),
    }
    cpu = _read(root / "proc/cpuinfo")
    if match := re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpu, re.MULTILINE):
        facts["cpu_flags"] = Fact(value=tuple(sorted(set(match[1].split()))), source="/proc/cpuinfo")
    if match := re.search(r"^(?:model name|Model)\s*:\s*(.*)$", cpu, re.MULTILINE):
        facts["cpu_model"] = Fact(value=match[1].strip(), source="/proc/cpuinfo")
    if match := re.search(r"^MemTotal:\s*(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE):
        facts["memory_bytes"] = Fact(value=int(match[1]) * 1024, source="/proc/meminfo")
    release = _read(root / "etc/os-release") or _read(root / "usr/lib/os-release")
    for fact, key in (("os", "ID"), ("os_version", "VERSION_ID")):
        if match := re.search(rf'^{key}="?([^"\n]*)"?$', release, re.MULTILINE):
            facts[fact] = Fact(value=match[1], source="/etc/os-release")
    return facts


def override_facts(facts: HostFacts, overrides: Mapping[str, str]) -> HostFacts:
    """Return the facts with some stated by a person, marked so; sizes are written as `512MiB`.

    Raises:
        Rejected: an unknown fact or a value that is none (`facts.unknown`, `facts.malformed`).
    """
    result = dict(facts)
    for name, text in overrides.items():
        if name == "memory":
            name = "memory_bytes"
        if name not in KNOWN:
            raise Rejected(
                "facts.unknown", f"unknown fact {name!r}", hint=f"known: memory, {', '.join(KNOWN)}"
            )
        try:
            value = _parse(name, text)
        except ValueError as error:
            raise Rejected("facts.malformed", f"fact {name}: {error}") from error
        result[name] = Fact(value=value, source="override")
    return result


def _parse(name: str, text: str) -> str | int | tuple[str, ...]:
    if name == "memory_bytes":
        return int(text) if text.isdigit() else parse_size(text)
    if name == "cpu_count":
        return int(text)
    if name == "cpu_flags":
        return tuple(sorted(flag for flag in re.split(r"[,\s]+", text) if flag))
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
