"""How long to wait after a failure: longer each time and at random, so that a fleet does not call in step.

What an upstream asks for (`Retry-After`) is waited for, and then some: those who were told the same come apart.
"""

from __future__ import annotations

import random

from skerry.kit.errors import SkerryError

FIRST_S = 2.0
MOST_S = 60.0
LEAST_S = 0.2
"""No failure, however early, makes a loop spin."""
LONGEST_ASKED_S = 600.0
"""An upstream that asks for more, by mistake or not, is asked again after this."""


class Retry:
    """A row of failures."""

    def __init__(self) -> None:
        self._failures = 0

    def next_wait_s(self, error: SkerryError | None = None) -> float:
        """Note a failure and return how long to wait: up to 2, 4, 8 ... 60 s, all of it at random.

        Where the error says when to ask again (`retry_after_s` among its facts), not before that, and up to half as
        long after it.
        """
        self._failures += 1
        asked_s = asked_wait_s(error)
        most_s = max(asked_s / 2, min(FIRST_S * 2.0 ** min(self._failures - 1, 16), MOST_S))
        return asked_s + random.uniform(LEAST_S, most_s)  # noqa: S311 (spreads load, guards nothing)

    def reset(self) -> None:
        """Note a success."""
        self._failures = 0


def asked_wait_s(error: SkerryError | None) -> float:
    """Return how long an error asks to wait, 0 when it does not; no more than `LONGEST_ASKED_S`."""
    asked = error.facts.get("retry_after_s") if error is not None else None
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not asked > 0:
        return 0.0
    return min(float(asked), LONGEST_ASKED_S)
