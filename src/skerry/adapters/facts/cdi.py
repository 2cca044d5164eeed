"""Names of devices in the specifications of the Container Device Interface.

Rules: JSON is read as such. Of YAML the block style is read, in which generators write, and of that only `kind` and
the devices' names: the agent has no YAML library. A file that cannot be read this way is a problem.
The format: https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree

FOLDERS = ("etc/cdi", "var/run/cdi")
FILE_LIMIT_BYTES = 1 << 20
_files_limit = 64
_kind_re = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}/[A-Za-z][A-Za-z0-9_.-]{0,62}")
_name_re = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_line_re = re.compile(r"(?P<indent> *)(?P<dash>- +)?(?P<key>[A-Za-z]+):(?: +(?P<value>\S.*))?")


def detect_cdi(tree: Tree, found: Findings) -> None:
    """Find all devices, as an engine would name them: `nvidia.com/gpu=0`."""
    names: list[str] = []
    paths = [f"{folder}/{name}" for folder in FOLDERS for name in tree.names(folder)[:_files_limit]]
    read: list[str] = []
    for path in paths:
        if not path.endswith((".json", ".yaml", ".yml")):
            continue
        data = tree.data(path, FILE_LIMIT_BYTES + 1)
        try:
            if len(data) > FILE_LIMIT_BYTES:
                raise ValueError("larger than 1 MiB")
            names += parse_cdi(data) if path.endswith(".json") else parse_cdi_yaml(data.decode())
        except ValueError as error:  # what msgspec and decode raise are such
            found.add_problem(f"CDI specification /{path}: {str(error)[:80]}")
        else:
            read.append(f"/{path}")
    found.add("devices.cdi", sorted(set(names)), ", ".join(read))


def parse_cdi(data: bytes) -> list[str]:
    """Return the names in a specification in JSON; ValueError when it is none."""
    try:
        document: Any = msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 (one kind of error for what is no specification)
    document = cast(dict[str, Any], document)
    devices: Any = document.get("devices")
    found = cast(list[object], devices) if isinstance(devices, list) else []
    names = [cast(dict[str, Any], device).get("name") for device in found if isinstance(device, dict)]
    return _qualified(str(document.get("kind")), [str(name) for name in names])


def parse_cdi_yaml(text: str) -> list[str]:
    """Return the names in a specification in YAML's block style; ValueError when it is not written so."""
    kind = ""
    names: list[str] = []
    item = -1  # the indent of the keys of one device; -1 outside of the list
    within = False
    for line in text.splitlines():
        match = _line_re.fullmatch(line.rstrip())
        if match is None:
            if re.match(r"[{\[&*!%\t]|\?", line) or (within and re.match(r"\s*- *[{\[&*!]", line)):
                raise ValueError("not in YAML's block style; write it as JSON")
            continue
        indent, key = len(match["indent"]), match["key"]
        value = _scalar(match["value"] or "")
        if indent == 0 and not match["dash"]:
            within = key == "devices"
            if within and value not in ("", "[]"):
                raise ValueError("not in YAML's block style; write it as JSON")
            kind = value if key == "kind" else kind
            item = -1
        elif within:
            if match["dash"] and item < 0:
                item = indent + len(match["dash"])
            at = indent + len(match["dash"] or "")
            if at == item and key == "name":
                names.append(value)
    return _qualified(kind, names)


def _scalar(value: str) -> str:
    if match := re.fullmatch(r"""(["'])(.*?)\1(?:\s+#.*)?""", value):
        return match[2]
    return value.partition(" #")[0].rstrip()


def _qualified(kind: str, names: list[str]) -> list[str]:
    if not _kind_re.fullmatch(kind):
        raise ValueError("states no kind")
    if bad := [name for name in names if not _name_re.fullmatch(name)]:
        raise ValueError(f"not a device's name: {bad[0]!r}")
    return [f"{kind}={name}" for name in names]
