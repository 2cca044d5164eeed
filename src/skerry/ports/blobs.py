"""Blobs: content-addressed bytes. A blob is there whole and verified, or it is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """The hub's blob store."""

    async def size(self, digest: str) -> int | None:
        """Return the length in bytes, or None when the blob is not there."""
        ...

    async def put(self, digest: str, content: bytes) -> None:
        """Store bytes held in memory; storing the same again is fine.

        Raises:
            Untrusted: the bytes do not have that digest.
            Unavailable: no room.
        """
        ...

    async def adopt(self, digest: str, file: Path) -> None:
        """Verify a file, store it, and remove it from where it was; one that does not match stays there.

        Raises:
            Untrusted: the bytes do not have that digest.
            Unavailable: no room.
        """
        ...

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield bytes from `start` up to, not including, `end`; `Missing` when the blob is not there."""
        ...


class LocalBlobs(Protocol):
    """Blobs as files on one machine, with partial ones that grow and can be resumed.

    A partial file is never used; `finish` verifies it and only then makes it a blob.
    """

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there."""
        ...

    def path(self, digest: str) -> Path:
        """Return where the blob is, or will be."""
        ...

    def partial_size(self, digest: str) -> int:
        """Return how many bytes of a partial blob are there."""
        ...

    def append(self, digest: str, chunks: Iterable[bytes], *, offset: int, limit: int) -> int:
        """Append to a partial blob and return its size; what arrived before an error is kept.

        `limit` is the length the whole blob may reach, what was there before included.

        Raises:
            Conflict: the partial blob does not end at `offset`.
            Untrusted: the blob would become longer than `limit`.
            Unavailable: no room.
        """
        ...

    def finish(self, digest: str) -> Path:
        """Verify a partial blob and make it a blob; one that does not match is removed.

        Raises:
            Untrusted: the bytes do not have that digest.
        """
        ...

    def put(self, digest: str, content: bytes) -> Path:
        """Verify and store bytes held in memory."""
        ...

    def verify(self, digest: str) -> bool:
        """Read the blob again; remove it and return False when it does not match."""
        ...

    def remove(self, digest: str) -> None:
        """Remove a blob and its partial file; an unknown one is fine."""
        ...

    def digests(self) -> frozenset[str]:
        """Return what is there."""
        ...
