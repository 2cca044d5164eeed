"""Policies: the part of the hub's store that is about what releases must prove. Rules as `skerry.ports.hub_store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's document (canonical JSON), and who changed it last."""

    name: str
    document: bytes
    changed_at: datetime
    changed_by: str


class Policies(Protocol):
    """What releases must prove; documents come with `apply_documents`."""

    def policies(self) -> Sequence[PolicyRecord]:
        """Return all policies, by name."""
        ...

    def remove_policy(self, name: str, audit: Audit) -> None:
        """Forget a policy; `Missing` when unknown."""
        ...
