"""Decides which bytes to send: for each wanted blob the cheapest way to it, and whether to wait for a cheaper one.

Rules:
- Ways to a blob: its own bytes, or a delta from blobs that are here (or from nothing: compressed). What of either is
  here already counts, so an attempt that was begun is left only for one that costs less than its rest.
- A delta that is still being made is waited for only as long as it is likely to save; over all waiting for one blob, so
  that a hub that always says "soon" does not hold a host up. The longer it was, the less often the hub is asked.
- A delta that proved bad is not taken again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from skerry.delivery.relatives import Base

WORTH = 0.95
"""A delta has to save a twentieth of the rest: applying it costs time and writing."""
LIKELY_SHARE = 0.5
LIKELY_SHARE_FROM_NOTHING = 0.6
"""What a delta that is not there yet is taken to need of its target."""
ASSUMED_RATE = 1 << 20
LONGEST_WAIT_S = 900.0
SHORTEST_WAIT_S = 1.0
_ASK_LATER = 0.25
"""The next wait is at least so much of those before."""


class WantedBlob(msgspec.Struct, frozen=True):
    """A blob that is not here; `held_bytes` of it are."""

    digest: str
    size_bytes: int
    held_bytes: int = 0


class DeltaOffer(msgspec.Struct, frozen=True):
    """A delta that can be fetched as the blob `delta`; `held_bytes` of that are here."""

    target: str
    base: Base
    delta: str
    size_bytes: int
    held_bytes: int = 0


class DeltaMaking(msgspec.Struct, frozen=True):
    """A delta that is being made, for `left_s` more as far as the hub can tell."""

    target: str
    base: Base
    left_s: float


class Way(msgspec.Struct, frozen=True):
    """How to get a blob: `left_bytes` to fetch, of itself, or of the delta `delta` from `base`."""

    blob: WantedBlob
    left_bytes: int
    delta: str = ""
    delta_bytes: int = 0
    base: Base = ()
    why: str = "in full"


class WaysPlan(msgspec.Struct, frozen=True):
    """`ways` to take now, in the order in which the blobs were wanted; `waits` for the deltas of the others.

    Who waits no longer than `wait_s` before planning again never waits for longer than it saves.
    """

    ways: tuple[Way, ...]
    waits: tuple[str, ...] = ()
    wait_s: float = 0.0


class Offered(msgspec.Struct, frozen=True):
    """What the upstream says to have, to be making, and what of it turned out to be bad."""

    offers: Sequence[DeltaOffer] = ()
    making: Sequence[DeltaMaking] = ()
    refused: AbstractSet[str] = frozenset()


def plan_ways(
    wanted: Sequence[WantedBlob], offered: Offered, *, rate: float | None, waited_s: Mapping[str, float]
) -> WaysPlan:
    """Decide for all wanted blobs.

    `rate` is what the link gives, in bytes per second, None when that is not known; `waited_s` is for how long each
    blob has been waited for.
    """
    offers: dict[str, list[DeltaOffer]] = {}
    for offer in offered.offers:
        if offer.delta not in offered.refused:
            offers.setdefault(offer.target, []).append(offer)
    making: dict[str, list[DeltaMaking]] = {}
    for one in offered.making:
        making.setdefault(one.target, []).append(one)
    ways: list[Way] = []
    waits: dict[str, float] = {}
    for blob in wanted:
        way = _cheapest(blob, offers.get(blob.digest, ()))
        wait_s = _wait_s(way, making.get(blob.digest, ()), rate, waited_s.get(blob.digest, 0.0))
        if wait_s is None:
            ways.append(way)
        else:
            waits[blob.digest] = wait_s
    return WaysPlan(tuple(ways), tuple(waits), min(waits.values(), default=0.0))


def _cheapest(blob: WantedBlob, offers: Sequence[DeltaOffer]) -> Way:
    best = Way(blob, blob.size_bytes - blob.held_bytes)
    limit = best.left_bytes * WORTH
    for offer in offers:
        left = offer.size_bytes - offer.held_bytes
        if left <= limit and (left < best.left_bytes or not best.delta):
            why = "by delta" if offer.base else "compressed"
            best = Way(blob, left, offer.delta, offer.size_bytes, offer.base, why)
    return best


def _wait_s(way: Way, making: Sequence[DeltaMaking], rate: float | None, waited_s: float) -> float | None:
    """Return for how long the best delta to come is worth waiting; None when none is."""
    best: float | None = None
    for one in making:
        share = LIKELY_SHARE if one.base else LIKELY_SHARE_FROM_NOTHING
        saved_bytes = way.left_bytes - share * way.blob.size_bytes
        worth_s = min(LONGEST_WAIT_S, saved_bytes / (rate or ASSUMED_RATE))
        left_s = max(SHORTEST_WAIT_S, one.left_s, _ASK_LATER * waited_s)
        if left_s + waited_s < worth_s and (best is None or left_s < best):
            best = left_s
    return best
