"""KeptDocuments: small things that a process remembers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class KeptDocuments(Protocol):
    """Documents by name. A call is one transaction, and durable when it returns."""

    def load(self, key: str) -> bytes | None:
        """Return a document, or None when there is none."""
        ...

    def save(self, documents: Mapping[str, bytes | None]) -> None:
        """Store several documents at once; None removes one.

        Raises:
            Unavailable: the disk is full; nothing was changed.
        """
        ...
