"""Device nodes as the kernel makes them in /dev.

Rules: only the name is looked up; a device is not opened, as that may block, reset it, or take it from who uses it. A
link whose device was pulled out leads nowhere, and so is absent.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


class DeviceNodes:
    """The nodes below `root`/dev; for this machine `root` is `/`.

    Elsewhere than on this machine regular files stand for nodes, which only root can make.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._is_real = root == Path("/")

    def is_there(self, path: str) -> bool:
        try:
            found = os.stat(self._root / path.lstrip("/"))  # noqa: PTH116 (each second: Path costs more)
        except (OSError, ValueError):
            return False
        return stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) or not self._is_real
