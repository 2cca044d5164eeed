"""Space and speed class of the disk under the data directory.

Rules: the disk is found in the mount table, its class in sysfs; a partition or a mapping is followed down to what it
lies on. What a virtual disk lies on nobody knows, so it has no class.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from skerry.adapters.facts.findings import Findings
from skerry.adapters.facts.tree import Tree

_deepest = 8
_virtual_re = re.compile(r"QEMU|VMware|VBOX|Msft|Google|Amazon", re.IGNORECASE)
_escape_re = re.compile(r"\\([0-7]{3})")


def detect_disk(tree: Tree, found: Findings, data: Path) -> None:
    """Find total and free bytes, and the class."""
    place = _existing(data)
    space = os.statvfs(place)
    found.add("disk.total_bytes", space.f_blocks * space.f_frsize, f"statvfs {place}")
    found.add("disk.free_bytes", space.f_bavail * space.f_frsize, f"statvfs {place}")
    block = find_block(tree, str(place.resolve()))
    kind = disk_class(tree, block) if block else ""
    found.add("disk.class", kind, f"/sys/class/block/{block}")


def _existing(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())


def find_block(tree: Tree, place: str) -> str:
    """Return the block device that holds a directory, such as `nvme0n1p2`; nothing when it is on none."""
    best = ("", "", "")
    for line in tree.text("proc/self/mountinfo", 1 << 18).splitlines():
        # proc(5): id parent major:minor root mount-point options ... - type source options
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) < 5 or len(tail) < 2:
            continue
        point = _escape_re.sub(lambda match: chr(int(match[1], 8)), fields[4])
        within = place == point or place.startswith(point.rstrip("/") + "/")
        if within and len(point) >= len(best[0]):  # a later mount hides an earlier one
            best = (point, fields[2], tail[1])
    _, number, source = best
    if re.fullmatch(r"[1-9][0-9]{0,5}:[0-9]{1,7}", number):
        return tree.target(f"sys/dev/block/{number}")
    # btrfs and its like have numbers of their own and name the device they lie on.
    match = re.fullmatch(r"/dev/((?:mapper/)?[A-Za-z0-9_.+-]+)", source)
    if not match:
        return ""
    name = match[1]
    return tree.target(f"dev/{name}") if name.startswith("mapper/") else name


def disk_class(tree: Tree, block: str) -> str:
    """Return `nvme`, `ssd`, `hdd`, `sd`, `emmc`, or nothing, of a block device, a partition or a mapping."""
    for _ in range(_deepest):
        folder = f"sys/class/block/{block}"
        if tree.exists(f"{folder}/partition"):
            parent = os.path.basename(os.path.dirname(tree.real(folder)))  # noqa: PTH119, PTH120
        else:
            parent = next(iter(tree.names(f"{folder}/slaves")), "")
        if not parent:
            break
        block = parent
    folder = f"sys/class/block/{block}"
    if block.startswith("nvme"):
        return "nvme"
    if block.startswith("mmcblk"):
        return {"SD": "sd", "MMC": "emmc"}.get(tree.line(f"{folder}/device/type"), "")
    if not block.startswith("sd") or _virtual_re.match(tree.line(f"{folder}/device/vendor")):
        return ""
    return {"0": "ssd", "1": "hdd"}.get(tree.line(f"{folder}/queue/rotational"), "")
