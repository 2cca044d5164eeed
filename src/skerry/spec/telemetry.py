"""MetricBatch (host -> hub): windows of metrics that a host hands up beside its Reports."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from skerry.spec.metadata import Part
from skerry.spec.metrics import MetricWindow
from skerry.spec.report import MAX_NUMBER

METRICS_TYPE = "application/vnd.skerry.metrics+json"
MAX_WINDOWS_PER_BATCH = 200


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
