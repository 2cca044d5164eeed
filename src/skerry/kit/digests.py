"""Digests of content, written `sha256:` and 64 lower-case hexadecimal digits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType

from skerry.kit.errors import Rejected

Digest = NewType("Digest", str)

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
_digest_re = re.compile(DIGEST_PATTERN)


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest.

    Raises:
        Rejected: it is not of the form `sha256:<64 hexadecimal digits>`.
    """
    if not _digest_re.fullmatch(text) or text.endswith("\n"):
        raise Rejected(
            "digest.malformed", f"not a digest: {text[:80]!r}", hint="expected sha256:<64 hex digits>"
        )
    return Digest(text)


def digest_of(content: bytes) -> Digest:
    """Return the digest of bytes held in memory."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def digest_of_chunks(chunks: Iterable[bytes]) -> tuple[Digest, int]:
    """Return digest and length in bytes of a stream."""
    state, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        state.update(chunk)
        size_bytes += len(chunk)
    return Digest("sha256:" + state.hexdigest()), size_bytes


def hex_of(digest: str) -> str:
    """Return the hexadecimal part of a digest."""
    return digest.removeprefix("sha256:")


def short(digest: str) -> str:
    """Return the first twelve hexadecimal digits, enough for people and for names on one host."""
    return hex_of(digest)[:12]
