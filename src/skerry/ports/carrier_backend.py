"""CarrierBackend: what stands behind the carrier API. The hub is one; a relay will be another."""

from __future__ import annotations

from typing import Protocol

from skerry.ports.blobs import ReadableBlobs
from skerry.spec.carrier import (
    DeltaAnswer,
    DeltaRequest,
    EnrollAnswer,
    EnrollRequest,
    SyncAnswer,
    SyncRequest,
)


class CarrierBackend(Protocol):
    """Answers hosts. Raises the error families; the carrier app turns them into problem documents."""

    @property
    def blobs(self) -> ReadableBlobs:
        """Where `GET /v1/blobs` reads."""
        ...

    async def trust_root(self) -> bytes:
        """Return the bytes of the TrustRoot document, whose digest join tokens pin."""
        ...

    async def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Give a host its place; `Denied` when the token is not good, `Conflict` when the name is taken."""
        ...

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        """Take reports, and answer with what is new, waiting up to `request.wait_s` for it."""
        ...

    def check_blob_token(self, token: str) -> str:
        """Return the host whose token lets its bearer read blobs; `Denied` when it does not."""
        ...

    async def deltas(self, host: str, request: DeltaRequest) -> DeltaAnswer:
        """Return which deltas there are, and have others made. At once: it waits for none."""
        ...
