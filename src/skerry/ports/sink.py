"""SinkTarget: a place outside that takes messages.

Promises every one keeps (tests/contract/test_sinks.py):
- `deliver` returns only when the far side has said that it has every message of the batch, in the order given.
- It ends within a minute, whatever the far side does, and hinders nothing else meanwhile.
- Secrets are read when they are used, and are in no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from skerry.spec.api_topics import TopicMessageView

MAX_DELIVERY_S = 60.0


class SinkTarget(Protocol):
    """One place, for one sink. One batch at a time."""

    async def deliver(self, messages: Sequence[TopicMessageView]) -> None:
        """Hand over a batch. After a failure some of it may have been taken: it comes again with the same ids.

        Raises:
            Unavailable: nobody answers, or the answer is to come later (`sink.unreachable`, `sink.busy`).
            Rejected: it does not want this (`sink.refused`), or a file is not as it should be (`sink.file`).
            Denied: it does not know us (`bus.refused`).
        """
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...
