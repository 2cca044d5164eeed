"""Presences: when hosts were there although they said nothing, part of what the hub remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

MAX_SILENCES = 20
"""So many silences of a host are kept, the newest."""


class Presences(Protocol):
    """Hosts that wait at the hub for news."""

    def note_seen(self, seen: Mapping[str, datetime]) -> None:
        """Note when hosts were last there; what is stored never goes back, and unknown hosts are passed over."""
        ...

    def note_silence(self, host: str, begun_at: datetime, ended_at: datetime) -> None:
        """Note that nothing was heard of a host for a while; the same beginning again changes nothing."""
        ...

    def silences(self) -> Mapping[str, Sequence[timedelta]]:
        """Return how long hosts were silent, by host, the newest `MAX_SILENCES` of each, the newest last."""
        ...
