"""Blobs: content-addressed bytes. A blob is there whole and verified, or it is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol


class ReadableBlobs(Protocol):
    """Blobs that can be read."""

    async def size(self, digest: str) -> int | None:
        """Return the length in bytes, or None when the blob is not there."""
        ...

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield bytes from `start` up to, not including, `end`; `Missing` when the blob is not there."""
        ...


class Blobs(ReadableBlobs, Protocol):
    """The hub's blob store."""

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

    async def remove(self, digest: str) -> None:
        """Remove a blob; an unknown one is fine."""
        ...

    def file(self, digest: str) -> Path | None:
        """Return the file that holds a blob which is there, None when blobs are not files of this machine."""
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

    def read_part(self, digest: str, offset: int, size: int) -> bytes:
        """Return at most so many bytes of a blob, or of its partial file; nothing past the end of what is there.

        What comes of a partial file is not verified.
        """
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

    def adopt(self, digest: str, file: Path) -> Path:
        """Verify a file of the same disk, and move it here as a blob; one that does not match stays where it was.

        Raises:
            Missing: there is no such file, nor such a blob.
            Untrusted: the bytes do not have that digest.
            Unavailable: it cannot be moved.
        """
        ...

    def make_by_delta(self, digest: str, size_bytes: int, *, base: Sequence[str], delta: str) -> Path:
        """Make a blob from blobs that are here, one after the other, and a delta that is a blob here.

        An attempt that was cut short is gone on with. Nothing but the content that `digest` names is ever made.

        Raises:
            Untrusted: the delta is damaged or of other blobs, or a base blob is damaged (`delta.*`).
            Missing: a base blob or the delta is not here.
            Unavailable: no room.
        """
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

    def sweep(self, keep: AbstractSet[str], *, older_than_s: float) -> int:
        """Remove what is unfinished, of other blobs than these, and has not grown for so long; return how many."""
        ...
