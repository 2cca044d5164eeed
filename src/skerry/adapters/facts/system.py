"""Operating system, kernel, host name, and what machine it is."""

from __future__ import annotations

import re

from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree

DEVICE_TREE = "sys/firmware/devicetree/base"

# What makers leave in firmware that nobody filled in.
_blank_re = re.compile(
    r"to be filled by o\.?e\.?m\.?|default string|system product name|system manufacturer|not specified|none|n/a|"
    r"not applicable|unknown|o\.?e\.?m\.?|x+|0+",
    re.IGNORECASE,
)


def detect_system(tree: Tree, found: Findings) -> None:
    """Find distribution, kernel and host name."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        release = tree.text(path)
        for name, key in (("os", "ID"), ("os_version", "VERSION_ID")):
            if name not in found.facts and (match := re.search(rf"^{key}=(.*)$", release, re.MULTILINE)):
                found.add(name, match[1].strip("\"' \t"), f"/{path}")
    for name, key in (("kernel", "osrelease"), ("hostname", "hostname")):
        found.add(name, tree.line(f"proc/sys/kernel/{key}"), f"/proc/sys/kernel/{key}")


def detect_machine(tree: Tree, found: Findings) -> None:
    """Find the name of board or product: of the device tree, else of the firmware's tables."""
    if model := tree.line(f"{DEVICE_TREE}/model"):
        found.add("machine", model, f"/{DEVICE_TREE}/model")
        return
    dmi = "sys/class/dmi/id"
    for maker_key, name_key in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        name = tree.line(f"{dmi}/{name_key}")
        if name and not _blank_re.fullmatch(name):
            maker = tree.line(f"{dmi}/{maker_key}")
            known = maker and not _blank_re.fullmatch(maker) and not name.lower().startswith(maker.lower())
            found.add("machine", f"{maker} {name}" if known else name, f"/{dmi}/{name_key}")
            return


def compatible(tree: Tree) -> list[str]:
    """Return what the device tree says the machine is compatible with, such as `nvidia,tegra234`."""
    return tree.text(f"{DEVICE_TREE}/compatible", 4096).strip("\0").split("\0")
