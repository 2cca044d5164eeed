"""Writes decisions and all that went into them to files, one for each rollout, for who looks into them later.

For finding out why something was decided, and for replaying it with other code; nothing of the hub reads them. A
failure to write never holds up a decision, and a file does not grow beyond its bound.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import structlog

from skerry.rollout.facts import Decision, RolloutFact, SiteFact
from skerry.rollout.recording import Recorded, encode_recorded

_log = structlog.get_logger()

MAX_BYTES = 256 << 20


class DecisionFiles:
    """A `Recorder` that appends to `NAME.jsonl` in a directory. A power cut costs the last lines at the most."""

    def __init__(self, folder: Path, *, most_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._failing = False

    def __call__(
        self, rollout: RolloutFact, fleet: Sequence[SiteFact], now: datetime, decision: Decision
    ) -> None:
        """Append a decision. Blocking."""
        line = encode_recorded(Recorded(rollout=rollout, fleet=tuple(fleet), now=now, decision=decision))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{rollout.name}.jsonl"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                if file.tell() + len(line) <= self._most_bytes:
                    file.write(line)
        except OSError as error:
            if not self._failing:
                _log.error("recording.failing", folder=str(self._folder), reason=str(error))
            self._failing = True
        else:
            self._failing = False
