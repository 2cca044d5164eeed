"""The messages of the operator API about who hosts are."""

from __future__ import annotations

from datetime import datetime

from skerry.spec.metadata import Part


class QuarantineView(Part, frozen=True, kw_only=True):
    """Why nothing is taken from a host or given to it, and since when."""

    since: datetime
    why: str
