"""How far downloads are, told in steps: a figure that moves all the time must not make a report each second."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import msgspec

from skerry.spec.report import FetchProgress

TELL_EVERY_S = 10.0
TELL_SHARE = 0.05
TELL_AT_MOST_EVERY_S = 1.0
RATE_OVER_S = 10.0
_SAMPLE_S = 1.0


class Fetched(msgspec.Struct, frozen=True):
    """What a release takes: files, how many of them by delta, the bytes to fetch, and what they would be without.

    `near_bytes` came from neighbours.
    """

    files: int
    by_delta: int
    size_bytes: int
    full_bytes: int
    near_bytes: int = 0


class ProgressMeter:
    """The bytes of one release. `note` is called from download threads, the rest from one loop."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._full: dict[str, int] = {}
        self._by_delta: set[str] = set()
        self._left = 0
        self._came = 0
        self._near = 0
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque()
        self._told: FetchProgress | None = None
        self._told_at = 0.0

    def begin(
        self,
        sizes: Mapping[str, int],
        left_bytes: int,
        *,
        full: Mapping[str, int],
        by_delta: AbstractSet[str] = frozenset(),
    ) -> None:
        """Note which blobs an attempt fetches: by digest what each takes, and would take in full; and what is left."""
        self._sizes.update(sizes)
        self._full.update(full)
        self._by_delta = (self._by_delta - sizes.keys()) | by_delta
        self._left = left_bytes
        self._came = 0
        self._samples.clear()

    @property
    def fetched(self) -> Fetched:
        """What the release takes in all."""
        full = sum(self._full.values())
        return Fetched(len(self._sizes), len(self._by_delta), sum(self._sizes.values()), full, self._near)

    def note(self, size: int, *, near: bool = False) -> None:
        """Note bytes that came; `near`: from a neighbour."""
        with self._lock:
            self._came += size
            self._near += size if near else 0

    def tell(self, now: float, *, flowing: bool) -> FetchProgress:
        """Return what to tell at a monotonic time: the same as before until there is news worth a report."""
        seen = self._look(now, flowing=flowing)
        told = self._told
        if told is not None and seen.total_bytes == told.total_bytes:
            moved = abs(seen.done_bytes - told.done_bytes)
            waited_s = now - self._told_at
            news = waited_s >= TELL_EVERY_S or moved >= TELL_SHARE * seen.total_bytes
            stopped = bool(told.rate) != bool(seen.rate)
            if seen == told or not (news or stopped) or waited_s < TELL_AT_MOST_EVERY_S:
                return told
        self._told, self._told_at = seen, now
        return seen

    def _look(self, now: float, *, flowing: bool) -> FetchProgress:
        total = sum(self._sizes.values())
        done = max(0, min(total, total - self._left + self._came))
        rate = self._rate(now) if flowing else 0
        left = None if not rate else -(-(total - done) // rate)
        return FetchProgress(
            done_bytes=done,
            total_bytes=total,
            full_bytes=sum(self._full.values()),
            rate=rate,
            left_s=left,
        )

    def _rate(self, now: float) -> int:
        samples = self._samples
        if not samples or now - samples[-1][0] >= _SAMPLE_S:
            samples.append((now, self._came))
        while len(samples) > 2 and now - samples[0][0] > RATE_OVER_S:
            samples.popleft()
        first_at, first = samples[0]
        return round((self._came - first) / (now - first_at)) if now > first_at else 0
