"""Sinks as the operator API shows them."""

from __future__ import annotations

from datetime import datetime

from skerry.spec.api import JsonDocument
from skerry.spec.metadata import Part


class SinkView(Part, frozen=True, kw_only=True):
    """A sink as written, who wrote it last, and how far it is.

    `position` is the cursor of the last message that is behind it; `waiting` counts those of its messages that are not.
    `lost` are messages, of any topic, that the hub forgot before the sink came to them. `trouble` is why its place did
    not take the last batch; it is tried again.
    """

    name: str
    document: JsonDocument
    topics: tuple[str, ...]
    place: str
    position: int
    waiting: int
    delivered_at: datetime | None = None
    lost: int = 0
    trouble: str = ""
    changed_at: datetime
    changed_by: str
