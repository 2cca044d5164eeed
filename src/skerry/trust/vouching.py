"""Whether a host may take a release, or go on running it: what is signed of it, as far as this host knows.

Rules: a release is taken only while metadata that lists it, and is not expired, is at hand; what was vouched for once
runs on whatever expires later; a revocation counts as soon as it is known, for what was vouched for as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from skerry.kit.digests import hex_of
from skerry.kit.errors import Untrusted
from skerry.spec.publishing import Revocation, Running
from skerry.trust.metadata import TargetFound
from skerry.trust.publishers import read_custom


class Named(msgspec.Struct, frozen=True):
    """A release as the hub names it: who is to have signed it, and its document."""

    release: str
    publisher: str
    digest: str
    size_bytes: int


class Standing(msgspec.Struct, frozen=True):
    """What follows for a release.

    `vouched`: it may be taken. `withheld`: not now, or never; `why` says which. `revoked`: not taken any more, and
    where it runs, `running` says what becomes of it.
    """

    state: Literal["vouched", "withheld", "revoked"]
    why: str = ""
    running: Running = "keep"


def judge_release(
    named: Named,
    found: TargetFound | None,
    revoked_publishers: Mapping[str, Revocation],
    *,
    before: bool,
    now: datetime,
) -> Standing:
    """Return a release's standing by what trusted metadata says of its target; None: it does not list it.

    `before`: it was vouched for at some time.
    """
    if not named.publisher:
        return Standing("withheld", f"nobody has signed {named.release}")
    if found is None:
        gone = revoked_publishers.get(named.publisher)
        if gone is not None:
            return Standing("revoked", f"publisher {named.publisher} was revoked: {gone.why}", gone.running)
        if before:
            return Standing("vouched")
        return Standing("withheld", f"publisher {named.publisher} has not signed {named.release}")
    if (found.sha256, found.length) != (hex_of(named.digest), named.size_bytes):
        return Standing("withheld", f"publisher {named.publisher} has signed another {named.release}")
    try:
        custom = read_custom(found.custom, found.path)
    except Untrusted as error:
        return Standing("withheld", error.message)
    if custom.revoked is not None:
        return Standing(
            "revoked", f"{named.release} was revoked: {custom.revoked.why}", custom.revoked.running
        )
    if now >= found.expires_at and not before:
        why = f"what is signed of {named.release} expired at {found.expires_at:%Y-%m-%d %H:%MZ}; nothing new is taken"
        return Standing("withheld", why)
    return Standing("vouched")
