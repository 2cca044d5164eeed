"""CarrierBackend: what stands behind the carrier API. The hub is one; a relay will be another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from skerry.ports.blobs import ReadableBlobs
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    KeyChangeAnswer,
    KeyChangeRequest,
    SyncAnswer,
    SyncRequest,
)
from skerry.spec.carrying import CarryAnswer, CarryRequest, RelayEnrollAnswer, RelayEnrollRequest

Gone = Callable[[], Awaitable[None]]
"""Returns when whoever asked has gone, so that nobody takes the answer any more."""


class CarrierBackend(Protocol):
    """Answers hosts. Raises the error families; the carrier app turns them into problem documents."""

    @property
    def blobs(self) -> ReadableBlobs:
        """Where `GET /v1/blobs` reads."""
        ...

    async def trust_root(self, digest: str) -> bytes:
        """Return the bytes of the TrustRoot with a digest, which join tokens pin; the newest if there is none."""
        ...

    async def metadata(self, name: str) -> bytes:
        """Return a file of signed metadata; `Missing` when there is none of that name."""
        ...

    async def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Give a host its place; `Denied` when the token is not good, `Conflict` when the name is taken."""
        ...

    async def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Put a host's new keys in the place of the old ones; again is fine. `Untrusted` unless both keys signed."""
        ...

    async def sync(self, request: SyncRequest, *, gone: Gone | None = None) -> SyncAnswer:
        """Take reports, and answer with what is new; wait up to `request.wait_s` for it, or until the asker is gone."""
        ...

    async def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Let a relay be the one its token names; `Denied` when the token is not good."""
        ...

    async def carry(self, request: CarryRequest) -> CarryAnswer:
        """Take what is below a relay, and answer with what is new for it, waiting up to `request.wait_s`.

        What is wrong with one host's reports is said in its answer, and matters to no other.
        """
        ...

    def check_blob_token(self, token: str) -> str:
        """Return the host or relay whose token lets its bearer read blobs; `Denied` when it does not."""
        ...

    def hosts_behind(self, holder: str) -> int:
        """Return for how many hosts the holder of a blob token asks: 1 for a host, those behind it for a relay."""
        ...

    async def deltas(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        """Return which deltas there are, and have others made. At once: it waits for none."""
        ...
