"""TopicQueue: messages of a host's bus that the hub does not have yet, on the host's disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from skerry.spec.topics import UplinkPriority
from skerry.spec.uplink import TopicDrop, TopicMessage
from skerry.telemetry.reducing import Waiting, Window


class NewTopicMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be kept; `pattern` is that of the rule by which it goes up."""

    application: str
    topic: str
    pattern: str
    at: float
    payload: bytes
    priority: UplinkPriority
    count: int = 1


class WindowName(msgspec.Struct, frozen=True, order=True):
    """Whose window it is: an application's rule, and the topic."""

    application: str
    pattern: str
    topic: str


class Dropped(msgspec.Struct, frozen=True, order=True):
    """What was not kept: an application's rule, and why."""

    application: str
    pattern: str
    why: str


class KeptBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that go up together; `number` is theirs for ever."""

    number: int
    messages: tuple[TopicMessage, ...]


class TopicQueue(Protocol):
    """Durable after each call; a power cut leaves the state before or after it. Usable from any thread.

    It holds no more than its bound: what has the lowest priority goes first, the oldest of it, and is counted.
    """

    def put(
        self,
        messages: Sequence[NewTopicMessage],
        *,
        windows: Mapping[WindowName, Window | None] = {},
        drops: Mapping[Dropped, int] = {},
        marks: Mapping[bytes, float] = {},
        unmark: Sequence[bytes] = (),
    ) -> None:
        """Keep messages, open windows (None ends one) and counts, all or none.

        `marks` name messages that the broker may not know yet to be kept, and when they came; `unmark` forgets some.

        Raises:
            Unavailable: no room (`disk.full`).
        """
        ...

    def windows(self) -> Mapping[WindowName, Window]:
        """Return the windows that are open."""
        ...

    def marks(self) -> Mapping[bytes, float]:
        """Return what is marked, and since when."""
        ...

    def waiting(self) -> Sequence[Waiting]:
        """Return what waits, by priority."""
        ...

    def next_batch(self) -> KeptBatch | None:
        """Return what goes up next: the batch that was begun, or a new one of the most urgent messages.

        Raises:
            Unavailable: no room to note that it was begun (`disk.full`).
        """
        ...

    def forget(self, batch: int) -> None:
        """Forget a batch: somebody else keeps it now."""
        ...

    def dropped(self) -> Sequence[TopicDrop]:
        """Return what was not kept, most first."""
        ...

    @property
    def stream(self) -> str:
        """The name of this queue, made at random when it began."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
