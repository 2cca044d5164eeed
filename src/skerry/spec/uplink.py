"""What a host hands up of its message bus: TopicBatch, which goes beside a Report as telemetry does."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part
from skerry.spec.report import MAX_NUMBER
from skerry.spec.topics import MAX_TOPIC_LENGTH

UPLINK_TYPE = "application/vnd.skerry.topics+msgpack"
MAX_MESSAGES_PER_BATCH = 500
MAX_PAYLOAD_BYTES = 256 << 10
MAX_BATCH_BYTES = 384 << 10
MAX_DROP_ROWS = 256

Tally = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class TopicMessage(Part, frozen=True, kw_only=True):
    """A message of an application; `at` is in seconds of the epoch.

    `number` is its own in its stream. `count` is how many messages it stands for, where they were reduced.
    """

    number: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    application: Annotated[str, Meta(max_length=64)]
    topic: Annotated[str, Meta(max_length=MAX_TOPIC_LENGTH)]
    at: float
    payload: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]
    count: Tally = 1


class TopicDrop(Part, frozen=True, kw_only=True):
    """How many messages a host did not keep of an application's uplink, and why, since its queue began."""

    application: Annotated[str, Meta(max_length=64)]
    topic: Annotated[str, Meta(max_length=MAX_TOPIC_LENGTH)]
    why: Annotated[str, Meta(max_length=64)]
    count: Tally


class TopicBatch(Part, frozen=True, kw_only=True, tag_field="type", tag="topics"):
    """Some messages, to be taken once for each `batch` of a `stream`.

    `stream` names the queue that they come from, which numbers its batches from 1. `sequence` is that of the Report
    that it goes with this time; the same batch may come again with another. `waiting` is how many messages the host has
    left.
    """

    host: str
    site: str
    sequence: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    stream: Annotated[str, Meta(min_length=1, max_length=32)]
    batch: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    messages: Annotated[tuple[TopicMessage, ...], Meta(max_length=MAX_MESSAGES_PER_BATCH)]
    dropped: Annotated[tuple[TopicDrop, ...], Meta(max_length=MAX_DROP_ROWS)] = ()
    waiting: Tally = 0
