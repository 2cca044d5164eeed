"""Which ends and errors are told unasked: the like of one once an hour, and not many in all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from skerry.spec.logs import LogRecord
from skerry.telemetry.log_answers import size_of

WITHIN = timedelta(hours=1)
MOST_PER_HOUR = 12
MOST_ERRORS_PER_HOUR = 8
MAX_KINDS = 256
MAX_TAIL = 40
MAX_TAIL_BYTES = 64 << 10
MAX_TAIL_MESSAGE = 1000

_varying = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|[0-9]+")

What = tuple[str, ...]
"""What one is the like of: kind, application, component, release, and the shape of what was said."""


def shape_of(message: str) -> str:
    """Return a message without what differs from one time to the next."""
    return _varying.sub("#", message[:200])[:120]


class Told(msgspec.Struct, frozen=True):
    """One is to be told: how often its like happened since it was last told, and what else was kept silent."""

    times: int
    silenced: int


class CrashRoom:
    """Decides, by the order of calls and their times alone."""

    def __init__(self) -> None:
        self._since: dict[What, datetime] = {}
        self._times: dict[What, int] = {}
        self._told: list[tuple[datetime, bool]] = []
        self._silenced = 0

    def admit(self, what: What, at: datetime, *, is_error: bool) -> Told | None:
        """Return what to tell of one that happened now, None when it is only counted."""
        self._told = [(then, error) for then, error in self._told if then > at - WITHIN]
        self._times[what] = self._times.get(what, 0) + 1
        since = self._since.get(what)
        if since is not None and at - since < WITHIN:
            return None
        errors = sum(error for _, error in self._told)
        if len(self._told) >= MOST_PER_HOUR or (is_error and errors >= MOST_ERRORS_PER_HOUR):
            self._silenced += 1
            self._times.pop(what, None)
            return None
        told = Told(self._times.pop(what), self._silenced)
        self._silenced = 0
        self._told.append((at, is_error))
        self._since.pop(what, None)
        self._since[what] = at
        while len(self._since) > MAX_KINDS:
            oldest = next(iter(self._since))
            del self._since[oldest]
            self._times.pop(oldest, None)
        return told


def tail_of(records: Sequence[LogRecord]) -> tuple[LogRecord, ...]:
    """Return the last lines, as many as are told unasked; long messages are cut, and that is counted."""
    found: list[LogRecord] = []
    size = 0
    for record in reversed(records[-MAX_TAIL:]):
        short = msgspec.structs.replace(
            record,
            message=record.message[:MAX_TAIL_MESSAGE],
            cut=record.cut + max(0, len(record.message) - MAX_TAIL_MESSAGE),
        )
        size += size_of(short)
        if size > MAX_TAIL_BYTES:
            break
        found.append(short)
    found.reverse()
    return tuple(found)
