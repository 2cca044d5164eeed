"""Messages from the hub to applications: DownlinkMessage, which travels in the DesiredState, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from skerry.spec.metadata import Name, Part
from skerry.spec.topics import Topic

MAX_DOWNLINK_BYTES = 16 << 10
MAX_DOWNLINKS = 64
MAX_EXPIRES_S = 30 * 86_400

DownlinkId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
DownlinkState = Literal["waiting", "delivered", "expired", "refused"]
"""`refused`: the application, as it is on that host, takes nothing from the hub on this topic."""


class DownlinkMessage(Part, frozen=True, kw_only=True):
    """A message for an application at a site: published once on the bus of each host that runs it.

    `payload` is base64. After `expires_at`, by the host's trusted time, it is not published any more.
    """

    id: DownlinkId
    application: Name
    topic: Topic
    payload: Annotated[str, Meta(max_length=MAX_DOWNLINK_BYTES * 2)]
    expires_at: Annotated[datetime, Meta(tz=True)]
