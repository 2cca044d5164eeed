"""The agent's own log on its way to the ring of logs: a bounded queue that costs whoever logs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from skerry.spec.logs import LogRecord
from skerry.telemetry.log_lines import record_of

MAX_WAITING = 2000


class OwnLog:
    """`take` may be called from any thread. The oldest events go first when nobody takes them away."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MAX_WAITING)

    def take(self, event: Mapping[str, Any]) -> None:
        """Remember an event."""
        self._waiting.append(dict(event))

    def records(self, now: Callable[[], datetime]) -> list[LogRecord]:
        """Return what was remembered, and forget it."""
        found: list[LogRecord] = []
        while self._waiting:
            event = self._waiting.popleft()
            event.pop("timestamp", None)
            if "message" in event:  # the name of the event is what stands first
                event["said"] = event.pop("message")
            found.append(record_of(event, now(), application=""))
        return found
