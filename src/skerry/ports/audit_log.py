"""AuditLog: who did what, in a chain, and what happened at hosts.

A part of the hub's store; rules as `skerry.ports.hub_store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit
from skerry.spec.audit import AuditEntry
from skerry.spec.report import Event
from skerry.trust.chain import ChainHead


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what; written in the transaction that did it, or alone when it was refused.

    `id` is the entry's number in the chain, `previous` the digest of the entry before it.
    """

    id: int
    at: datetime
    who: str
    action: str
    subject: str
    outcome: str = "done"
    why: str = ""
    decision: str = ""
    previous: str = ""


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An event as stored."""

    id: int
    host: str
    site: str
    received_at: datetime
    event: Event


class AuditLog(Protocol):
    """The audit and the events of hosts: they are only ever added to, and forgotten at their old ends."""

    def add_audit(self, audit: Audit) -> None:
        """Write an audit entry of its own."""
        ...

    def audits(self, limit: int) -> Sequence[AuditRecord]:
        """Return the newest audit entries, newest first."""
        ...

    def audit_entries(self, after: int, limit: int) -> Sequence[AuditEntry]:
        """Return the oldest entries above a number, as they are chained."""
        ...

    def audit_head(self) -> ChainHead:
        """Return the number and the digest of the newest entry."""
        ...

    def audits_after(self, after: int, limit: int) -> Sequence[AuditRecord]:
        """Return the oldest audit entries above a number, oldest first."""
        ...

    def events_after(self, after: int, limit: int) -> Sequence[EventRecord]:
        """Return the oldest events above a number, in the order in which they were stored."""
        ...

    def log_position(self, since: datetime) -> tuple[int, int]:
        """Return the number of the newest event and of the newest audit entry before the first that is not older."""
        ...

    def trim(self, *, keep_events: int, keep_audits: int) -> None:
        """Forget the oldest events and audit entries beyond these numbers.

        Entries go once there are a tenth too many; then one is added which says up to where they went.
        """
        ...
