"""What bringing a release costs, in bytes: each file in full, compressed, and as a delta, as far as that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from skerry.delivery.relatives import Base, PlacedFile, find_bases

Pair = tuple[Base, str]
"""Base and target of a delta."""

Sizes = Mapping[Pair, int | None]
"""What deltas take; None while one is being made, nothing for those that nobody has made."""


class FileCost(msgspec.Struct, frozen=True):
    """What one file takes each way; a way whose size is not known is None, and `pending` when one is being made."""

    file: PlacedFile
    compressed_bytes: int | None = None
    delta_bytes: int | None = None
    pending: bool = False

    @property
    def least_bytes(self) -> int:
        """The cheapest way that is known."""
        ways = (self.file.size_bytes, self.compressed_bytes, self.delta_bytes)
        return min(way for way in ways if way is not None)


class Cost(msgspec.Struct, frozen=True):
    """What some files take together: in full, the cheapest way, and for how many a cheaper one is not known yet."""

    files: int = 0
    full_bytes: int = 0
    size_bytes: int = 0
    pending: int = 0


def cost_files(
    wanted: Sequence[PlacedFile], held: Sequence[PlacedFile], also_held: AbstractSet[str], sizes: Sizes
) -> list[FileCost]:
    """Return what each file costs that is wanted and not held; `held` are those deltas may be made from."""
    bases = find_bases(wanted, held)
    here = {file.digest for file in held} | also_held
    found: dict[str, FileCost] = {}
    for file in wanted:
        if file.digest not in here and file.digest not in found:
            found[file.digest] = _cost(file, bases.get(file.digest, ()), sizes)
    return list(found.values())


def sum_costs(costs: Sequence[FileCost]) -> Cost:
    """Return what files cost together."""
    return Cost(
        files=len(costs),
        full_bytes=sum(cost.file.size_bytes for cost in costs),
        size_bytes=sum(cost.least_bytes for cost in costs),
        pending=sum(cost.pending for cost in costs),
    )


def pairs_of(wanted: Sequence[PlacedFile], held: Sequence[PlacedFile]) -> list[Pair]:
    """Return every delta that could be asked for, the most promising to each file first."""
    bases = find_bases(wanted, held)
    most = max(map(len, bases.values()), default=0)
    return [
        (ways[rank], target) for rank in range(most) for target, ways in bases.items() if rank < len(ways)
    ]


def _cost(file: PlacedFile, ways: tuple[Base, ...], sizes: Sizes) -> FileCost:
    sized = [(bool(base), sizes[base, file.digest]) for base in ways if (base, file.digest) in sizes]
    return FileCost(
        file,
        compressed_bytes=min(
            (size for by_delta, size in sized if not by_delta and size is not None), default=None
        ),
        delta_bytes=min((size for by_delta, size in sized if by_delta and size is not None), default=None),
        pending=any(size is None for _, size in sized),
    )
