"""Link: the way up, to a hub or a relay. Blocking; call it in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

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


class Link(Protocol):
    """Carries messages; believes nothing of them. Every call has a time limit.

    All methods raise `Unavailable` when the upstream cannot be reached or is busy, and the family the
    upstream's answer names otherwise.
    """

    def enroll(self, request: EnrollRequest) -> EnrollAnswer:
        """Ask to belong to a site."""
        ...

    def change_keys(self, request: KeyChangeRequest) -> KeyChangeAnswer:
        """Ask that new keys take the place of the old ones; again is fine."""
        ...

    def sync(self, request: SyncRequest) -> SyncAnswer:
        """Hand over reports and wait up to `request.wait_s` for news."""
        ...

    def enroll_relay(self, request: RelayEnrollRequest) -> RelayEnrollAnswer:
        """Ask to be the relay that a token names."""
        ...

    def carry(self, request: CarryRequest) -> CarryAnswer:
        """Hand over what is below a relay and wait up to `request.wait_s` for news."""
        ...

    def deltas(self, request: DeltaRequest, *, token: str) -> DeltaAnswer:
        """Ask which deltas there are; an upstream that knows nothing of deltas has none."""
        ...

    def blob_size(self, digest: str, *, token: str) -> int | None:
        """Return how long a blob is; None when the upstream has none of that digest."""
        ...

    def blob(
        self, digest: str, *, offset: int, token: str, limit: int | None = None, rate: int | None = None
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob from a byte on; what arrives is not verified yet.

        No more than `limit` bytes come. Who reads at a `rate` of so many bytes per second says so: then little
        is sent ahead, and it comes in pieces of a fraction of a second.
        """
        ...

    def metadata(self, name: str, *, token: str, max_bytes: int) -> bytes | None:
        """Return a file of signed metadata, not verified yet; None when the upstream has none of that name.

        Raises:
            Unavailable: it has more than `max_bytes` (`link.strange_answer`).
        """
        ...

    def close(self) -> None:
        """Cut the connection; a call that waits ends with `Unavailable`."""
        ...
