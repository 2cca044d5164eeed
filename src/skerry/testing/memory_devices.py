"""Devices that a test plugs in and pulls out."""

from __future__ import annotations


class MemoryDevices:
    """Paths of devices that are there."""

    def __init__(self) -> None:
        self._there: set[str] = set()

    def is_there(self, path: str) -> bool:
        return path in self._there

    def plug(self, path: str) -> None:
        """Put a device in."""
        self._there.add(path)

    def pull(self, path: str) -> None:
        """Take a device out."""
        self._there.discard(path)
