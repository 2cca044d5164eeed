"""Presences: when hosts were there although they said nothing, part of what the hub remembers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol


class Presences(Protocol):
    """Hosts that wait at the hub for news."""

    def note_seen(self, seen: Mapping[str, datetime]) -> None:
        """Note when hosts were last there; what is stored never goes back, and unknown hosts are passed over."""
        ...
