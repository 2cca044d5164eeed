"""Hosts' intermediates: the part of the hub's store that is about them. Rules as `skerry.ports.hub_store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec


class AuthorityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An intermediate that was issued to a host, kept when the host has gone. `issuer` is the hash of its issuer's key.

    One that this hub has only heard of from its host, as after it was restored, has no `chain` and no `issuer`.
    """

    serial: str
    host: str
    site: str
    key: str
    issuer: str
    chain: str
    issued_at: datetime
    not_after: datetime
    revoked_at: datetime | None = None


class Authorities(Protocol):
    """What the hub keeps of hosts' intermediates. They are revoked with their host, in the same transaction."""

    def authorities(self, site: str = "") -> Sequence[AuthorityRecord]:
        """Return all intermediates, or those of a site's hosts, by host and by when they were issued."""
        ...

    def add_authority(self, record: AuthorityRecord) -> None:
        """Store an intermediate; one that is there already stays as it is."""
        ...

    def forget_authorities(self, before: datetime) -> None:
        """Forget intermediates that have run out before a time."""
        ...
