"""Devices: tells whether a device node is there now."""

from __future__ import annotations

from typing import Protocol


class Devices(Protocol):
    """Looks at device nodes by their paths below `/dev`. Never opens one: a look must not change what it sees."""

    def is_there(self, path: str) -> bool:
        """Tell whether there is a device behind a path, links followed. Never raises, and answers at once."""
        ...
