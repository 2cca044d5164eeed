"""PCI functions as sysfs lists them."""

from __future__ import annotations

from typing import NamedTuple

from skerry.adapters.facts.tree import Tree

FOLDER = "sys/bus/pci/devices"


class PciFunction(NamedTuple):
    """One function: its address, ids, class code and the driver that holds it, if one does."""

    address: str
    vendor: int
    device: int
    kind: int
    driver: str

    @property
    def ids(self) -> str:
        """Vendor and device as `10de:2684`."""
        return f"{self.vendor:04x}:{self.device:04x}"

    @property
    def is_display(self) -> bool:
        """Whether it calls itself a display or 3D controller."""
        return self.kind >> 16 == 0x03


def list_pci(tree: Tree) -> list[PciFunction]:
    """Return all functions, by address."""
    found: list[PciFunction] = []
    for address in tree.names(FOLDER):
        folder = f"{FOLDER}/{address}"
        vendor, device = tree.number(f"{folder}/vendor", 16), tree.number(f"{folder}/device", 16)
        if vendor is not None and device is not None:
            kind = tree.number(f"{folder}/class", 16) or 0
            found.append(PciFunction(address, vendor, device, kind, tree.target(f"{folder}/driver")))
    return found
