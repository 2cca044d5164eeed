"""Which blobs a host keeps, and whether what is to be fetched has room; pure.

- What runs, the last good release and what is being fetched are never removed, however little room there is.
- Bases, from which the next delta may be made, are removed only when it helps: to keep within the limit, or so that
  what is to be fetched has room. Then the least useful go first, and no more of them than needed.
- What nobody names is removed.
- What does not fit, even if all goes that may, is said in bytes; then the fetch must not begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from skerry.kit.quantities import format_size

_NOBODY: frozenset[str] = frozenset()


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Who names which blobs, by digest.

    `good` is the last good release, to which a host goes back. `candidate` is what is being fetched or laid out,
    and the base of a delta that is under way. `bases` are what the next delta may be made from, the most useful
    first; those that the others name are kept by them.
    """

    running: AbstractSet[str] = _NOBODY
    good: AbstractSet[str] = _NOBODY
    candidate: AbstractSet[str] = _NOBODY
    bases: tuple[str, ...] = ()


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How much room there is, in bytes.

    `free` is what the disk has free, `wanted` what is still to be written for what is fetched, `limit` what all
    blobs may take at the most (None any), and `keep_free` what has to stay free when all has been fetched; it asks
    for nothing while nothing is wanted.
    """

    free: int
    wanted: int = 0
    limit: int | None = None
    keep_free: int = 0


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """What to remove, in this order; `lacking` bytes are missing all the same, and `why` says so for people.

    `remove` are whole blobs, `drop` partial ones.
    """

    remove: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    lacking: int = 0
    why: tuple[str, ...] = ()


def plan_keeping(
    held: Mapping[str, int], named: Named, room: Room, *, partial: Mapping[str, int] | None = None
) -> Keeping:
    """Return which blobs of a host go, and what is lacking then for what is wanted.

    `held` are the sizes of whole blobs, `partial` what has come of others; what is partial of a blob that is held, or
    that is neither run, good nor fetched, is of no use.
    """
    partial = partial or {}
    kept_names = named.running | named.good | named.candidate
    drop = sorted(digest for digest in partial if digest in held or digest not in kept_names)
    bases = [base for base in dict.fromkeys(named.bases) if base in held and base not in kept_names]
    unnamed = sorted(held.keys() - kept_names - set(bases))
    freed = sum(held[digest] for digest in unnamed) + sum(partial[digest] for digest in drop)
    taken = sum(held.values()) + sum(partial.values()) - freed
    free = room.free + freed

    spare = sum(held[base] for base in bases)
    least_taken, most_free = taken - spare, free + spare
    lacking = _short(room, least_taken, most_free)
    # What does not fit anyway is no reason to give up what makes the next delta small.
    need = msgspec.structs.replace(room, wanted=0) if lacking else room
    given_up: list[str] = []
    while bases and _short(need, taken, free):
        base = bases.pop()
        given_up.append(base)
        taken -= held[base]
        free += held[base]
    why = [
        *_removals(held, unnamed, "that nothing needs any more"),
        *_removals(held, given_up, "that deltas could have been made from, for room"),
        *_shortages(room, least_taken, most_free),
    ]
    return Keeping(remove=(*unnamed, *given_up), drop=tuple(drop), lacking=lacking, why=tuple(why))


def _short(room: Room, taken: int, free: int) -> int:
    """Return how many bytes are missing when blobs take `taken` and the disk has `free`."""
    return max(0, _over_limit(room, taken), _below_free(room, free))


def _over_limit(room: Room, taken: int) -> int:
    return 0 if room.limit is None else taken + room.wanted - room.limit


def _below_free(room: Room, free: int) -> int:
    return room.wanted + room.keep_free - free if room.wanted else 0


def _removals(held: Mapping[str, int], digests: list[str], words: str) -> Iterator[str]:
    if digests:
        blobs = "1 blob" if len(digests) == 1 else f"{len(digests)} blobs"
        yield f"removes {blobs} ({format_size(sum(held[digest] for digest in digests))}) {words}"


def _shortages(room: Room, taken: int, free: int) -> Iterator[str]:
    wanted = f"{format_size(room.wanted)} to fetch"
    if room.limit is not None and (over := _over_limit(room, taken)) > 0:
        held = f"{format_size(taken)} to be kept and {wanted}"
        yield f"{format_size(over)} lacking: {held}, with room for {format_size(room.limit)} of blobs"
    if (below := _below_free(room, free)) > 0:
        keep = f" and {format_size(room.keep_free)} to be left free" if room.keep_free else ""
        yield f"{format_size(below)} lacking: {wanted}{keep}, with {format_size(free)} free on the disk"
