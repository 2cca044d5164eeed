"""TopicStore: messages that hosts handed up from their buses, part of what the hub remembers.

Rules as `skerry.ports.hub_store`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.spec.uplink import TopicBatch, TopicDrop
from skerry.telemetry.received import Ranges


class TopicRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A message. `id` rises in the order in which messages came to this hub, and is never used twice."""

    id: int
    site: str
    host: str
    application: str
    topic: str
    at: datetime
    received_at: datetime
    payload: bytes
    count: int
    stream: str
    number: int


class TopicSource(msgspec.Struct, frozen=True, kw_only=True):
    """A queue of a host: the numbers of its batches that came, what it did not keep, and what it had left then."""

    host: str
    stream: str
    site: str
    received: Ranges = ()
    dropped: tuple[TopicDrop, ...] = ()
    waiting: int = 0
    received_at: datetime


class TopicStore(Protocol):
    """The methods of `HubStore` about messages."""

    def put_topic_batch(self, batch: TopicBatch, at: datetime) -> bool:
        """Store the messages of a batch that comes for the first time, in one step; tell whether it does."""
        ...

    def topic_messages(
        self,
        *,
        after: int,
        limit: int,
        sites: Collection[str] | None = None,
        since: datetime | None = None,
    ) -> Sequence[TopicRecord]:
        """Return the messages after an id, in the order in which they came: of sites, and that came since."""
        ...

    def newest_topic_messages(
        self, limit: int, sites: Collection[str] | None = None
    ) -> Sequence[TopicRecord]:
        """Return the messages that came last, in the order in which they came."""
        ...

    def topic_sources(self) -> Sequence[TopicSource]:
        """Return all queues, by host."""
        ...

    def trim_topics(self, *, before: datetime, most_bytes: int) -> int:
        """Forget messages that came before, and the oldest of what is too much; return how many went.

        Queues that told nothing for 400 days more are forgotten too.
        """
        ...
