"""How long to wait after a failure: twice as long each time, with jitter, so that a fleet does not call in step."""

from __future__ import annotations

import random

FIRST_S = 1.0
MOST_S = 60.0


class Retry:
    """A row of failures."""

    def __init__(self) -> None:
        self._failures = 0

    def next_wait_s(self) -> float:
        """Note a failure and return how long to wait: 1, 2, 4 ... 60 s, less up to a half."""
        self._failures += 1
        most_s = min(FIRST_S * 2.0 ** min(self._failures - 1, 16), MOST_S)
        return most_s * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, guards nothing)

    def reset(self) -> None:
        """Note a success."""
        self._failures = 0
