"""What will run out at which host before it is heard of again, over the operator API."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from skerry.spec.metadata import Part


class ForecastView(Part, frozen=True, kw_only=True):
    """A secret or a certificate that ends at `ends_at`, before its host is expected `back_by`, and why.

    `held_at` is when the host last said what it holds. `version` is None for a certificate.
    """

    site: str
    host: str
    kind: Literal["secret", "certificate"]
    name: str
    version: int | None = None
    ends_at: datetime
    back_by: datetime
    why: tuple[str, ...]
    last_seen_at: datetime
    held_at: datetime | None = None
