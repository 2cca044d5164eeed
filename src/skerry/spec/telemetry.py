"""What a host hands up beside its Reports: MetricBatch, which gates judge by, and TelemetryBatch, with all else."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part
from skerry.spec.metrics import Count, MetricWindow
from skerry.spec.report import MAX_NUMBER

METRICS_TYPE = "application/vnd.skerry.metrics+json"
TELEMETRY_TYPE = "application/vnd.skerry.telemetry+msgpack"
MAX_WINDOWS_PER_BATCH = 200
MAX_BLOCK_BYTES = 512 << 10


class MetricBatch(Part, frozen=True, kw_only=True, tag_field="type", tag="metrics"):
    """Some windows. A window takes the place of what a batch of a lower `sequence` said of it, and of no other.

    `sequence` is that of the Report that was made for it. `dropped` counts windows that were given up before they could
    be told, because the host had no more room.
    """

    host: str
    site: str
    sequence: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    windows: Annotated[tuple[MetricWindow, ...], Meta(max_length=MAX_WINDOWS_PER_BATCH)]
    dropped: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] = 0


class Losses(Part, frozen=True, kw_only=True):
    """What a host did not keep since its buffer began: samples that were dropped, by priority, and refused ones.

    Samples are refused where an application has too many series; `worst` names the metric with most of these.
    """

    dropped: Annotated[dict[str, Count], Meta(max_length=8)] = {}
    refused: Count = 0
    worst: Annotated[str, Meta(max_length=128)] = ""


class TelemetryBatch(Part, frozen=True, kw_only=True, tag_field="type", tag="telemetry"):
    """A block of windows (docs/internals/telemetry.md), to be counted once for each `number` of a `stream`.

    `stream` names the buffer that it comes from, which numbers its batches from 1. `sequence` is that of the Report
    that it goes with this time; the same batch may come again with another. It travels as MessagePack, since a block
    is bytes.
    """

    host: str
    site: str
    sequence: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    stream: Annotated[str, Meta(min_length=1, max_length=32)]
    number: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    block: Annotated[bytes, Meta(max_length=MAX_BLOCK_BYTES)]
    losses: Losses = Losses()
