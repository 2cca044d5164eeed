"""Decides from whom a host gets a blob that others of its site want as well, so that it crosses the WAN link once.

Rules:
- Who has it whole gives it; askers spread over all who do.
- Else it is followed as it comes to the one that fetches it from above.
- Else one of those who want it fetches it: the one that holds most of it, of equal ones the first by a hash of blob
  and host, so that many blobs spread over all hosts. No host leads, and nothing is remembered.
- Who cannot fetch from above waits for one who can, and tries all the same when there is none.
- A wrong view of who is there costs bytes. It is never trusted: what comes is verified as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import msgspec


class Holder(msgspec.Struct, frozen=True):
    """Another host, and how the blob stands there; `held_bytes` as it said itself."""

    host: str
    state: Literal["whole", "above", "wanted"]
    held_bytes: int = 0


class Wanting(msgspec.Struct, frozen=True):
    """This host, and how much of the blob it told the others to hold; not `able`: it failed above a moment ago."""

    host: str
    held_bytes: int = 0
    able: bool = True


class Source(msgspec.Struct, frozen=True):
    """Fetch it from `above`, get it `near` from a host, or look again `later`, when that host may have begun."""

    kind: Literal["above", "near", "later"]
    host: str = ""
    why: str = ""


def choose_source(digest: str, mine: Wanting, others: Iterable[Holder]) -> Source:
    """Return where a host gets a blob now. `others` are the hosts that can be reached and have to do with it."""
    known = list(others)
    whole = [one for one in known if one.state == "whole"]
    if whole:
        giver = min(whole, key=lambda one: _hash(digest, mine.host, one.host))
        return Source("near", giver.host, f"{giver.host} has it")
    fetching = [one for one in known if one.state == "above"]
    if fetching:
        giver = min(fetching, key=lambda one: (-one.held_bytes, _hash(digest, one.host)))
        return Source("near", giver.host, f"it comes to {giver.host}")
    wanting = [(one.held_bytes, one.host) for one in known if one.state == "wanted"]
    if mine.able:
        wanting.append((mine.held_bytes, mine.host))
    if not wanting:
        return Source("above", why="no other host can fetch it")
    held, first = min(wanting, key=lambda one: (-one[0], _hash(digest, one[1])))
    if first == mine.host:
        return Source("above", why="nobody else wants it" if len(wanting) == 1 else _why(held))
    return Source("later", first, f"{first} is to fetch it")


def _why(held_bytes: int) -> str:
    return "this host holds most of it" if held_bytes else "this host is the first of those who want it"


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode()).digest()
