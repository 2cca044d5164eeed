"""What happens when, on virtual time: the earliest first, of equal times the one that was entered first."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Agenda:
    """Events in the order of their times, in seconds since the simulation began."""

    def __init__(self, end_s: float) -> None:
        self.now_s = 0.0
        self.end_s = end_s
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._entered = 0

    def at(self, when_s: float, happens: Callable[[], None]) -> None:
        """Let something happen; what lies in the past happens next, what lies after the end never does."""
        if when_s <= self.end_s:
            self._entered += 1
            heapq.heappush(self._heap, (max(when_s, self.now_s), self._entered, happens))

    def after(self, seconds: float, happens: Callable[[], None]) -> None:
        """Let something happen so much later."""
        self.at(self.now_s + seconds, happens)

    def run(self) -> None:
        """Let everything happen until the end."""
        heap = self._heap
        while heap:
            self.now_s, _, happens = heapq.heappop(heap)
            self.events += 1
            happens()
        self.now_s = self.end_s
