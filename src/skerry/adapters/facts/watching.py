"""Sees, cheaply, that something was plugged in, taken out, or changed where facts come from.

Rules: names are compared, not contents, but for the interfaces that default routes lead over; of `/dev` only after its
time stamp has moved (sysfs has none that could be trusted). What it returns means nothing but by being equal or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path

from skerry.adapters.facts.cdi import FOLDERS
from skerry.adapters.facts.custom import FOLDER
from skerry.adapters.facts.tree import Tree
from skerry.adapters.facts.uplink import find_uplinks

_listed = (
    "sys/bus/usb/devices",
    "sys/bus/pci/devices",
    "sys/class/accel",
    "sys/class/drm",
    "sys/class/net",
    "sys/class/video4linux",
    "proc/driver/nvidia/gpus",
)
_stamped = ("dev", "dev/dri", "dev/accel", "dev/nvidia-caps")
_node_re = re.compile(
    r"(video|tty(USB|ACM|S|AMA|THS|TCU|mxc|LP)|nvidia|nvhost|hailo|apex_|accel|dri|kfd|rknpu|fastrpc|adsprpc|ethosu|"
    r"neutron|galcore|i2c-|spidev|gpiochip|dxg)"
)


class Watcher:
    """Remembers listings whose time stamps have not moved."""

    def __init__(self, tree: Tree, data: Path | None) -> None:
        self._tree = tree
        self._drop_ins = str(data / FOLDER) if data else ""
        self._kept: dict[str, tuple[int, tuple[str, ...]]] = {}

    def look(self) -> Hashable:
        """Return what is there now."""
        listed = [self._names(path) for path in _listed]
        stamped = [self._kept_names(path) for path in _stamped]
        files = [_stamps(self._tree.at(path)) for path in FOLDERS]
        drop_ins = _stamps(self._drop_ins) if self._drop_ins else ()
        return (*listed, *stamped, *files, drop_ins, find_uplinks(self._tree))

    def _names(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(os.listdir(self._tree.at(path)))  # noqa: PTH208
        except OSError:
            return ()

    def _kept_names(self, path: str) -> tuple[str, ...]:
        try:
            stamp = os.stat(self._tree.at(path)).st_mtime_ns  # noqa: PTH116
        except OSError:
            self._kept.pop(path, None)
            return ()
        kept = self._kept.get(path)
        if kept is None or kept[0] != stamp:
            names = self._names(path)
            kept = stamp, tuple(sorted(filter(_node_re.match, names) if path == "dev" else names))
            self._kept[path] = kept
        return kept[1]


def _stamps(folder: str) -> tuple[tuple[str, int, int], ...]:
    """Return name, time and size of a directory's files: those are changed in place, too."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                state = entry.stat(follow_symlinks=False)
                found.append((entry.name, state.st_mtime_ns, state.st_size))
    except OSError:
        return tuple(found)
    return tuple(sorted(found))
