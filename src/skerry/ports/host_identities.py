"""HostIdentities: the part of the hub's store that is about who hosts are. Rules as `skerry.ports.hub_store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.spec.report import Event
from skerry.trust.cloning import Lineage


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """The audit entry that goes with a change, and the decision (`ROLLOUT#NUMBER`) that it follows from, if any."""

    at: datetime
    who: str
    action: str
    subject: str
    outcome: str = "done"
    why: str = ""
    decision: str = ""


class LineageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions of a host's reports. While `quarantined_at` is set, nothing is taken from it or given to it."""

    host: str
    lineage: Lineage
    quarantined_at: datetime | None = None
    why: str = ""


class KeysRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A host's new public keys, and the signing key they follow on."""

    host: str
    old_key: str
    sign_key: str
    seal_key: str


class HostIdentities(Protocol):
    """Sessions, quarantine and keys of hosts."""

    def lineages(self) -> Sequence[LineageRecord]:
        """Return what is known of hosts' sessions, by name; a host that has not reported yet is absent."""
        ...

    def put_lineage(
        self, record: LineageRecord, event: Event | None = None, audit: Audit | None = None
    ) -> None:
        """Store what is known of a host's sessions, in the place of what was; `Missing` when the host is unknown."""
        ...

    def readmit_host(self, name: str, event: Event, audit: Audit) -> None:
        """End a host's quarantine and forget its sessions.

        `Missing` when the host is unknown, `Conflict` when it is not in quarantine (`host.not_quarantined`).
        """
        ...

    def change_keys(self, keys: KeysRecord, event: Event, audit: Audit) -> None:
        """Put a host's new keys in the place of the old ones.

        `Missing` when the host is unknown, `Conflict` when it has other keys by now (`host.keys_moved`).
        """
        ...
