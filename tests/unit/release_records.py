"""Releases as the hub's store holds them."""

from __future__ import annotations

from datetime import datetime

from skerry.kit.canonical import encode_canonical
from skerry.kit.digests import digest_of
from skerry.ports.hub_store import ReleaseRecord
from skerry.spec.release import Release


def record_of(release: Release, created_at: datetime) -> ReleaseRecord:
    """Return the record of a release that somebody pushed."""
    document = encode_canonical(release)
    return ReleaseRecord(
        name=release.name,
        application=release.application.metadata.name,
        version=release.application.spec.version,
        digest=digest_of(document),
        document=document,
        size_bytes=1,
        created_at=created_at,
        created_by="ann",
    )
