"""What tells two machines apart that began as one disk image: eight hexadecimal digits.

A copied disk has its original's machine id, so what the firmware says counts as well: DMI of PCs and virtual machines,
the device tree's serial number of boards, and the addresses of network cards that are devices. All of it is hashed:
the mark can be compared, and says nothing about the machine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_FILES = (
    "etc/machine-id",
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/product_serial",
    "sys/class/dmi/id/board_serial",
    "proc/device-tree/serial-number",
)
_MOST_BYTES = 256


def machine_mark(root: Path = Path("/")) -> str:
    """Return the mark of this machine; what cannot be read is left out."""
    parts = [_read(root / name) for name in _FILES]
    cards = sorted((root / "sys/class/net").glob("*/device"))
    parts += [_read(card.parent / "address") for card in cards]
    return hashlib.sha256(b"skerry machine mark\n" + b"\0".join(parts)).hexdigest()[:8]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).strip()
    except OSError:
        return b""
