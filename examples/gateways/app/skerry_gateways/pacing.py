"""How long to wait before the next try: twice as long each time, up to ten seconds, and never in step with others."""

from __future__ import annotations

import random


class Pacing:
    """Waits for one connection."""

    def __init__(self, *, first_s: float = 0.5, most_s: float = 10.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the seconds to wait now: between half and all of what it has come to."""
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        return wait_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin anew: it went well."""
        self._next_s = self._first_s
