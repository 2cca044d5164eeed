"""Values with their time and quality, as they are published.

A message is JSON: `value`, `quality` (`good`, `uncertain` or `bad`), `source_time` (when the source had it, null where
that is not known) and `gateway_time` (when the gateway published it), in UTC as of RFC 3339.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

Value = bool | int | float | str | None
Quality = Literal["good", "uncertain", "bad"]
MAX_WRITE_BYTES = 4096


@dataclass(frozen=True)
class Point:
    """A value at its source."""

    name: str
    value: Value
    quality: Quality = "good"
    source_time: datetime | None = None

    def gone_bad(self) -> Point:
        """Return the same value once its source is out of reach: it may be anything now."""
        return replace(self, quality="bad")

    def encode(self, now: datetime) -> bytes:
        """Return the message."""
        value = self.value
        if isinstance(value, float) and not math.isfinite(value):
            value = None  # JSON has no such number
        message = {
            "value": value,
            "quality": "bad" if value is None and self.quality == "good" else self.quality,
            "source_time": instant(self.source_time) if self.source_time else None,
            "gateway_time": instant(now),
        }
        return json.dumps(message, separators=(",", ":")).encode()


def instant(at: datetime) -> str:
    """Return an instant in UTC; one without a zone is in UTC already, as OPC UA has them."""
    whole = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return whole.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_write(payload: bytes) -> Value:
    """Return the value that a message asks to write: `{"value": ...}`, or the bare value.

    Raises:
        ValueError: it is neither, or too long.
    """
    if len(payload) > MAX_WRITE_BYTES:
        raise ValueError("too long")
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    value = found.get("value") if isinstance(found, dict) else found
    if not isinstance(value, bool | int | float | str):
        raise ValueError("no value")  # noqa: TRY004 (what people send is wrong, not what we pass)
    return value
