"""RelayRecords: the part of the hub's store that is about relays. Rules as `skerry.ports.hub_store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from skerry.ports.host_identities import Audit
from skerry.spec.relay import RelayView


class RelayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A relay: its document (canonical JSON), which RelayState it was last issued, and what it last said of itself.

    Without a `sign_key` nobody has enrolled under this name. `tls_key` is as in its RelayReport.
    """

    name: str
    document: bytes
    generation: int = 0
    state_expires_at: datetime | None = None
    sign_key: str = ""
    enrolled_at: datetime | None = None
    last_seen_at: datetime | None = None
    sequence: int = 0
    generation_held: int = 0
    clock_offset_s: float | None = None
    tls_key: str = ""
    view: RelayView | None = None
    view_at: datetime | None = None


class RelayTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A token with which one relay enrols once, by the SHA-256 of its secret.

    One that `replaces` is for new keys of a relay that has enrolled.
    """

    hash: str
    relay: str
    created_at: datetime
    expires_at: datetime
    replaces: bool = False


class RelayKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The public keys with which a relay enrols."""

    relay: str
    sign_key: str
    tls_key: str
    enrolled_at: datetime


class RelaySeen(msgspec.Struct, frozen=True, kw_only=True):
    """What one verified RelayReport changes on the hub; without a `view`, that of before holds."""

    relay: str
    sequence: int
    seen_at: datetime
    clock_offset_s: float
    generation: int
    tls_key: str
    view: RelayView | None = None


class Way(msgspec.Struct, frozen=True):
    """The signed word of a host, or of a relay, has come by `relay`; last at `seen_at`, give or take an hour.

    `site` is the host's, and not stored here.
    """

    relay: str
    name: str
    seen_at: datetime
    site: str = ""


class RelayRecords(Protocol):
    """Relays, their tokens and states, and who comes by which of them; documents come with `apply_documents`."""

    def relays(self) -> Sequence[RelayRecord]:
        """Return all relays, by name."""
        ...

    def relay(self, name: str) -> RelayRecord | None:
        """Return a relay."""
        ...

    def remove_relay(self, name: str, audit: Audit) -> None:
        """Forget a relay, its tokens and who came by it; `Missing` when unknown."""
        ...

    def add_relay_token(self, token: RelayTokenRecord, audit: Audit) -> None:
        """Store a token; `Missing` when its relay is unknown."""
        ...

    def enroll_relay(self, token_hash: str, keys: RelayKeys, audit: Audit) -> RelayRecord:
        """Use a token and store the relay's keys, in one transaction.

        A relay that has this very signing key already is returned as it is.

        Raises:
            Denied: the token is unknown or another relay's (`join.unknown`), used up (`join.used_up`) or expired at
                `keys.enrolled_at` (`join.expired`).
            Conflict: the relay has other keys and the token does not replace them (`relay.enrolled`), or another
                relay has this key (`relay.key_taken`).
        """
        ...

    def apply_relay_report(self, seen: RelaySeen) -> int:
        """Store what a relay says of itself if its sequence is above the stored one; return the one now stored.

        `Missing` when the relay is unknown or has not enrolled.
        """
        ...

    def relay_state(self, name: str) -> bytes | None:
        """Return the RelayState envelope last issued to a relay."""
        ...

    def issue_relay_state(
        self, relay: str, generation: int, state: bytes, expires_at: datetime, *, after: int
    ) -> None:
        """Store a relay's new RelayState; `Conflict` unless the stored generation is `after`, and lower."""
        ...

    def host_ways(self) -> Sequence[Way]:
        """Return by which relays which hosts' reports have come."""
        ...

    def relay_ways(self) -> Sequence[Way]:
        """Return by which relays which other relays' reports have come."""
        ...

    def put_ways(self, *, hosts: Sequence[Way] = (), relays: Sequence[Way] = ()) -> None:
        """Store ways, each in the place of what was known of it; those of unknown hosts and relays are left out."""
        ...

    def trim_ways(self, before: datetime) -> None:
        """Forget the ways by which nobody has come since."""
        ...
