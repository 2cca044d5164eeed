"""DownlinkStore: messages for applications at sites, part of what the hub remembers.

Rules as `skerry.ports.hub_store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit


class DownlinkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A message for an application at one site; the same `id` at each site that it was sent to."""

    id: str
    site: str
    application: str
    topic: str
    payload: bytes
    created_at: datetime
    created_by: str
    expires_at: datetime


class DownlinkStore(Protocol):
    """The methods of `HubStore` about messages to sites."""

    def add_downlinks(self, records: Sequence[DownlinkRecord], audit: Audit, *, most: int) -> None:
        """Store messages, all or none; `Conflict` when a site had more than `most` that last (`downlink.full`)."""
        ...

    def downlinks(self, site: str = "") -> Sequence[DownlinkRecord]:
        """Return the messages for a site, or for all, the oldest first."""
        ...

    def forget_downlinks(self, before: datetime) -> None:
        """Forget messages that expired before."""
        ...
