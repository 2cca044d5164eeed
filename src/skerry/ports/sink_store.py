"""Sinks in the hub's store: their documents, and how far each is. Rules as `skerry.ports.hub_store`.

Several replicas of a hub may share one store: a sink is served by whoever holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit


class SinkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A sink's document (canonical JSON), and how far it is.

    `position` is the id of the last message that is behind it. `holder` serves it until `held_until`.
    """

    name: str
    document: bytes
    changed_at: datetime
    changed_by: str
    position: int = 0
    delivered_at: datetime | None = None
    lost: int = 0
    trouble: str = ""
    holder: str = ""
    held_until: datetime | None = None


class SinkStep(msgspec.Struct, frozen=True, kw_only=True):
    """How far a sink comes, from where; `delivered_at` when its place took something. Its trouble is over."""

    before: int
    position: int
    lost: int = 0
    delivered_at: datetime | None = None


class SinkStore(Protocol):
    """The methods of `HubStore` about sinks; documents come with `apply_documents`.

    A new sink begins behind the newest message; one that is written again stays where it is.
    """

    def sinks(self) -> Sequence[SinkRecord]:
        """Return all sinks, by name."""
        ...

    def remove_sink(self, name: str, audit: Audit) -> None:
        """Forget a sink; `Missing` when unknown."""
        ...

    def hold_sink(self, name: str, holder: str, *, now: datetime, until: datetime) -> SinkRecord | None:
        """Hold a sink until then, and return it; None when somebody else holds it at `now`, or there is none.

        A hold that ends more than twice as far ahead as `until` is of a clock that was wrong, and counts as over.
        """
        ...

    def advance_sink(self, name: str, holder: str, step: SinkStep) -> bool:
        """Move a sink on; False, and nothing happens, when another holds it or it is not where the step begins."""
        ...

    def note_sink_trouble(self, name: str, holder: str, trouble: str) -> None:
        """Note what hinders a sink that this one holds."""
        ...

    def newest_topic_id(self) -> int:
        """Return the highest id that a message ever had; 0 before the first."""
        ...

    def waiting_topics(self, after: int) -> Mapping[tuple[str, str], int]:
        """Return how many messages are behind an id, by site and topic."""
        ...
