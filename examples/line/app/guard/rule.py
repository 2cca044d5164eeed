"""The rule itself: values in, decision out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

LEAST_SCORE = 0.5


@dataclass(frozen=True)
class Known:
    """What is known of the line. None is what nobody said, or said with doubt."""

    reading: float | None = None
    limit: float | None = None
    stopped: bool | None = None

    def told(self, which: str, message: Any) -> Known:
        """Return what is known after a message: `value` counts where `quality` is good and no `score` is too low."""
        fields: dict[str, Any] = message if isinstance(message, dict) else {}
        value = fields.get("value")
        sure = fields.get("quality") == "good" and fields.get("score", 1.0) >= LEAST_SCORE
        if which == "stopped":
            return replace(self, stopped=value if sure and isinstance(value, bool) else None)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        changed: dict[str, Any] = {which: value if sure and is_number else None}
        return replace(self, **changed)

    @property
    def wanted(self) -> bool | None:
        """Whether the press has to stand still; None while that cannot be said."""
        if self.reading is None or self.limit is None:
            return None
        return self.reading > self.limit

    @property
    def order(self) -> bool | None:
        """What has to be written; None where the press does so already, or nothing can be said.

        It is asked at each reading: an order that was lost is given again.
        """
        return self.wanted if self.wanted is not None and self.wanted != self.stopped else None
